"""The machine as test scripts know it: the methods of the NixOS test driver, with its meanings."""

import io
import shlex
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

from lab.container import TIMED_OUT, Completed, Container
from lab.tree import Tree

PATIENCE = 900
"""Seconds that a wait lasts unless the script says otherwise, as in the NixOS driver."""

PAUSE = 0.2


class Failed(Exception):
    """The machine did not do what the script promised."""


class Machine:
    """One machine of a test. It boots when `start` is called or the first command comes."""

    def __init__(self, tree: Tree, log: Callable[[str], None]) -> None:
        self.name = "machine"
        self.log = log
        self._tree = tree
        self._container: Container | None = None

    # Power

    def start(self) -> None:
        """Boots the machine, unless it runs."""
        if self._container is None:
            self._container = Container.boot(self._tree)
            verb = "booted in" if self._container.is_ready else "is still starting after"
            self.log(f"machine: {verb} {self._container.boot_seconds:.1f} s")

    def shutdown(self) -> None:
        """Shuts the machine down and waits for it. Its files stay: `start` boots it again."""
        container, self._container = self._container, None
        if container is not None and not container.power_off():
            raise Failed("the machine did not shut down; its power was cut")

    def crash(self) -> None:
        """Cuts the power. What was written stays."""
        container, self._container = self._container, None
        if container is not None:
            container.kill()

    def reboot(self) -> None:
        """Shuts the machine down and boots it again."""
        self.shutdown()
        self.start()

    @property
    def is_up(self) -> bool:
        """Whether the machine has been started and not been stopped since."""
        return self._container is not None

    # Commands

    def execute(self, command: str, timeout: int | None = PATIENCE) -> tuple[int, str]:
        """Runs `command` with bash and returns its exit status and what it wrote to stdout.

        A command that takes longer than `timeout` seconds is killed; its status is 124.
        """
        completed = self._run(command, timeout=timeout)
        return completed.status, completed.stdout

    def succeed(self, *commands: str, timeout: int | None = None) -> str:
        """Runs the commands, each of which must exit with 0, and returns what they wrote."""
        return "".join(self._must(command, True, timeout) for command in commands)

    def fail(self, *commands: str, timeout: int | None = None) -> str:
        """Runs the commands, none of which may exit with 0, and returns what they wrote."""
        return "".join(self._must(command, False, timeout) for command in commands)

    def wait_until_succeeds(self, command: str, timeout: int = PATIENCE) -> str:
        """Repeats `command` until it exits with 0 and returns what it wrote then."""
        return self._repeat(command, True, timeout)

    def wait_until_fails(self, command: str, timeout: int = PATIENCE) -> str:
        """Repeats `command` until it does not exit with 0 and returns what it wrote then."""
        return self._repeat(command, False, timeout)

    def sleep(self, secs: int) -> None:
        """Lets the machine's time pass."""
        self.succeed(f"sleep {secs}")

    # Files and ports

    def copy_from_host(self, source: str, target: str) -> None:
        """Copies a file or a directory from here to the path `target` in the machine."""
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            tar.add(source, arcname=Path(target).name, filter=_owned_by_root)
        parent = shlex.quote(str(Path(target).parent))
        unpack = f"mkdir -p {parent} && tar -x -C {parent}"
        completed = self._run(unpack, stdin=archive.getvalue())
        if completed.status != 0:
            raise Failed(_explain(f"copy {source} to {target}", completed))

    def wait_for_file(self, filename: str, timeout: int = PATIENCE) -> None:
        """Waits until something exists at the path."""
        self._repeat(f"test -e {filename}", True, timeout)

    def wait_for_open_port(
        self, port: int, addr: str = "localhost", timeout: int = PATIENCE
    ) -> None:
        """Waits until a TCP connection to the port can be made in the machine."""
        self._repeat(f": <>/dev/tcp/{addr}/{port}", True, timeout)

    def wait_for_closed_port(
        self, port: int, addr: str = "localhost", timeout: int = PATIENCE
    ) -> None:
        """Waits until no TCP connection to the port can be made in the machine."""
        self._repeat(f": <>/dev/tcp/{addr}/{port}", False, timeout)

    # Units

    def systemctl(self, q: str) -> tuple[int, str]:
        """Runs systemctl with the arguments `q`."""
        return self.execute(f"systemctl {q}")

    def start_job(self, jobname: str) -> tuple[int, str]:
        """Starts a unit."""
        return self.systemctl(f"start {jobname}")

    def stop_job(self, jobname: str) -> tuple[int, str]:
        """Stops a unit."""
        return self.systemctl(f"stop {jobname}")

    def get_unit_info(self, unit: str) -> dict[str, str]:
        """Returns all properties of a unit."""
        return _properties(self.succeed(f"systemctl --no-pager show {shlex.quote(unit)}"))

    def get_unit_property(self, unit: str, property: str) -> str:
        """Returns one property of a unit."""
        show = f"systemctl --no-pager show {shlex.quote(unit)} --property={property}"
        return _properties(self.succeed(show))[property]

    def require_unit_state(self, unit: str, require_state: str = "active") -> None:
        """Fails unless the unit is in this state now."""
        state = self.get_unit_property(unit, "ActiveState")
        if state != require_state:
            raise Failed(f"{unit} is {state}, not {require_state}")

    def wait_for_unit(self, unit: str, timeout: int = PATIENCE) -> None:
        """Waits until the unit is active.

        Fails at once if it has failed, or is inactive with nothing going on that could change it.
        """
        _retry(lambda: self._is_active(unit), f"{unit} did not become active", timeout)

    # For people

    def shell_interact(self) -> None:
        """Gives the terminal to a shell in the machine until it ends."""
        self._running().shell()

    def _is_active(self, unit: str) -> bool:
        state = self.get_unit_property(unit, "ActiveState")
        if state == "failed" or (state == "inactive" and self._is_at_rest(unit)):
            raise Failed(f"{unit} is {state}\n{self.execute(f'systemctl status {unit}')[1]}")
        return state == "active"

    def _is_at_rest(self, unit: str) -> bool:
        """Whether there are no jobs, and there was none that has just finished either."""
        no_jobs = "No jobs" in self.succeed("systemctl list-jobs --full")
        return no_jobs and self.get_unit_property(unit, "ActiveState") == "inactive"

    def _running(self) -> Container:
        self.start()
        assert self._container is not None
        return self._container

    def _run(
        self, command: str, stdin: bytes = b"", timeout: float | None = PATIENCE
    ) -> Completed:
        return self._running().run(f"set -euo pipefail; {command}", stdin, timeout)

    def _must(self, command: str, succeed: bool, timeout: int | None) -> str:
        completed = self._run(command, timeout=timeout)
        if (completed.status == 0) is not succeed:
            raise Failed(_explain(command, completed))
        return completed.stdout

    def _repeat(self, command: str, succeed: bool, timeout: int) -> str:
        last = Completed(TIMED_OUT, "", "")

        def attempt() -> bool:
            nonlocal last
            last = self._run(command, timeout=timeout)
            return (last.status == 0) is succeed

        try:
            _retry(attempt, "", timeout)
        except _Impatient:
            wanted = "success" if succeed else "failure"
            raise Failed(f"no {wanted} in {timeout} s\n{_explain(command, last)}") from None
        return last.stdout


class _Impatient(Failed):
    """A wait was longer than its limit."""


def _retry(attempt: Callable[[], bool], complaint: str, timeout: float) -> None:
    """Repeats `attempt` until it is true: at least once, and a last time when `timeout` is over."""
    deadline = time.monotonic() + timeout
    while True:
        is_last = time.monotonic() >= deadline
        if attempt():
            return
        if is_last:
            raise _Impatient(f"{complaint} in {timeout} s")
        time.sleep(PAUSE)


def _properties(shown: str) -> dict[str, str]:
    pairs = (line.partition("=") for line in shown.splitlines() if "=" in line)
    return {name: value for name, _, value in pairs}


def _explain(command: str, completed: Completed) -> str:
    ending = "timed out" if completed.status == TIMED_OUT else f"exit status {completed.status}"
    output = completed.stdout + completed.stderr
    return f"{ending}: {command}\n{output}".rstrip()


def _owned_by_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member
