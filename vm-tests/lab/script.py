"""Runs one test script as the NixOS test driver would, and reports how it went."""

import re
import textwrap
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.fixtures import STEPS
from lab.machine import Failed, Machine
from lab.root import RELEASE


def release_of(test: Path) -> str:
    """Returns the Debian release that a script names in a line of its own: `RELEASE = "bookworm"`."""
    named = re.search(r'^RELEASE = "(\w+)"$', test.read_text(), re.MULTILINE)
    return named[1] if named else RELEASE


class Report:
    """Tells and counts. Every line that says ok or FAILED counts as one."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self.passed = 0
        self.failed = 0
        self._tell = tell

    def say(self, text: str) -> None:
        """Tells what is neither passed nor failed."""
        self._tell(textwrap.indent(text, " " * 8))

    def ok(self, name: str, seconds: float) -> None:
        """Counts a success."""
        self.passed += 1
        self._tell(f"ok      {name} ({seconds:.1f} s)")

    def fail(self, name: str, explanation: str) -> None:
        """Counts a failure."""
        self.failed += 1
        self._tell(f"FAILED  {name}")
        self.say(explanation)


class Script:
    """A test script and the globals it may use: `machine`, `acme`, `machines`, `start_all`, `subtest`, and the steps."""

    def __init__(self, path: Path, machine: Machine, report: Report) -> None:
        self._path = path
        self._machine = machine
        self._report = report
        self._has_subtests = False

    def run(self) -> bool:
        """Runs the script to its end or its first failure; returns whether it reached the end.

        A script without subtests counts as one.
        """
        started = time.monotonic()
        known = self._globals()
        try:
            for path in (STEPS, self._path):
                exec(compile(path.read_text(), str(path), "exec"), known)
        except _SubtestFailed:
            return False
        except Exception as error:
            self._report.fail(self._path.stem, self._explain(error))
            return False
        if not self._has_subtests:
            self._report.ok(self._path.stem, time.monotonic() - started)
        return True

    def _globals(self) -> dict[str, object]:
        return {
            "__name__": self._path.stem,
            "machine": self._machine,
            # Who issues is a neighbour on the same machine here.
            "acme": self._machine,
            "machines": [self._machine],
            "start_all": self._machine.start,
            "subtest": self._subtest,
        }

    @contextmanager
    def _subtest(self, name: str) -> Iterator[None]:
        self._has_subtests = True
        full_name = f"{self._path.stem}: {name}"
        started = time.monotonic()
        try:
            yield
        except _SubtestFailed:
            raise
        except Exception as error:
            self._report.fail(full_name, self._explain(error))
            raise _SubtestFailed from error
        self._report.ok(full_name, time.monotonic() - started)

    def _explain(self, error: Exception) -> str:
        """Says what went wrong, below the lines of the script that led there."""
        frames = traceback.extract_tb(error.__traceback__)
        lines = [
            f"{Path(frame.filename).name}:{frame.lineno}: {frame.line}"
            for frame in frames
            if frame.filename in (str(STEPS), str(self._path))
        ]
        what = str(error) if isinstance(error, Failed) else f"{type(error).__name__}: {error}"
        return "\n".join([*lines, what])


class _SubtestFailed(Exception):
    """A subtest has failed and been reported; the rest of the script must not run."""
