"""What a script finds in either runner, for who judges its types."""

from collections.abc import Callable
from contextlib import AbstractContextManager

from lab.machine import Machine

machine: Machine
acme: Machine
machines: list[Machine]
start_all: Callable[[], None]
subtest: Callable[[str], AbstractContextManager[None]]

