"""A machine while it runs: boots systemd under systemd-nspawn and runs commands beside it."""

import itertools
import os
import select
import signal
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from lab.isolation import RUN, Cgroup
from lab.tree import Tree

NSPAWN = (
    "systemd-nspawn",
    "--quiet",
    "--boot",
    "--hostname=machine",
    "--register=no",
    "--keep-unit",
    "--settings=no",
    "--notify-ready=yes",
    "--private-network",
    "--link-journal=no",
    "--resolv-conf=off",
    "--timezone=off",
    # dockerd and hardened units ask the kernel for as much as on a real machine. systemd of Debian 12
    # has no name for the group of Landlock's calls.
    "--capability=all",
    "--system-call-filter=@keyring bpf"
    " landlock_create_ruleset landlock_add_rule landlock_restrict_self",
)
ENVIRONMENT = (
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME=/root",
    "USER=root",
    "LANG=C.UTF-8",
    "TERM=dumb",
    "PAGER=",
)
BOOT_PATIENCE = 20.0
SHUTDOWN_PATIENCE = 60.0

TIMED_OUT = 124
"""The exit status of a command that took too long, as timeout(1) has it."""


class BootFailed(Exception):
    """The machine ended before it was up."""


@dataclass(frozen=True)
class Completed:
    """How a command ended and what it said."""

    status: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Container:
    """A running machine."""

    nspawn: subprocess.Popen[bytes]
    leader: int
    cgroup: Cgroup
    boot_seconds: float
    is_ready: bool
    _serial: "itertools.count[int]" = field(default_factory=itertools.count)

    @classmethod
    def boot(cls, tree: Tree) -> "Container":
        """Boots the machine that lies in `tree`.

        Returns when systemd says that it has started everything, or after `BOOT_PATIENCE`: a unit
        that never gets ready is for the test to judge.
        """
        cgroup = Cgroup.of(os.getpid()).child(f"{RUN}{os.getpid()}")
        started = time.monotonic()
        with _Notifications(tree.directory / "notify") as notifications:
            nspawn = _spawn(tree, cgroup, notifications.path)
            try:
                leader = notifications.wait_for("X_NSPAWN_LEADER_PID", nspawn)
                ready = notifications.wait_for("READY", nspawn) if leader else None
                if leader is None or nspawn.poll() is not None:
                    raise BootFailed(f"the machine did not boot:\n{tree.console.read_text()}")
            except BaseException:
                _end(nspawn, cgroup)
                raise
        seconds = time.monotonic() - started
        return cls(nspawn, int(leader), cgroup, seconds, is_ready=ready is not None)

    def run(self, script: str, stdin: bytes = b"", timeout: float | None = None) -> Completed:
        """Runs `script` with bash in the machine, as root.

        After `timeout` seconds it is killed, along with everything it started.
        """
        cgroup = self._command_group()
        with tempfile.TemporaryFile() as stderr:
            with subprocess.Popen(
                self._entered("bash", "-c", script),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                preexec_fn=cgroup.enter,
            ) as process:
                stdout, status = _communicate(process, cgroup, stdin, timeout)
            stderr.seek(0)
            return Completed(status, _text(stdout), _text(stderr.read()))

    def shell(self) -> None:
        """Gives the terminal to a shell in the machine until it ends."""
        terminal = f"TERM={os.environ.get('TERM', 'dumb')}"
        shell = self._entered("env", terminal, "bash", "-i")
        subprocess.run(shell, preexec_fn=self._command_group().enter)

    def power_off(self) -> bool:
        """Shuts the machine down; if it takes too long, kills it and returns False."""
        os.kill(self.leader, signal.SIGRTMIN + 4)
        try:
            self.nspawn.wait(SHUTDOWN_PATIENCE)
            return True
        except subprocess.TimeoutExpired:
            return False
        finally:
            self.kill()

    def kill(self) -> None:
        """Ends the machine as a power cut would."""
        _end(self.nspawn, self.cgroup)

    def _entered(self, *command: str) -> list[str]:
        enter = ["nsenter", f"--target={self.leader}", "--all", "--root", "--wd"]
        return [*enter, "env", "--ignore-environment", "--chdir=/tmp", *ENVIRONMENT, *command]

    def _command_group(self) -> Cgroup:
        """Returns a control group for one command, among those of the machine's own services.

        It stays, because what a command leaves running stays too; it goes with the machine.
        """
        init_scope = Cgroup.of(self.leader)
        return Cgroup(init_scope.path.parent).child(f"commands/{next(self._serial)}")


def _spawn(tree: Tree, cgroup: Cgroup, notify: Path) -> subprocess.Popen[bytes]:
    """Starts nspawn, which is to die with us, in a session that Ctrl-C does not reach."""
    with tree.console.open("ab") as console:
        return subprocess.Popen(
            ["setpriv", "--pdeathsig=KILL", *NSPAWN, f"--machine=machine-{os.getpid()}"]
            + [f"--directory={tree.root}", f"--bind={tree.docker}:/var/lib/docker"],
            env={**os.environ, "NOTIFY_SOCKET": str(notify)},
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=console,
            preexec_fn=cgroup.enter,
            start_new_session=True,
        )


def _end(nspawn: subprocess.Popen[bytes], cgroup: Cgroup) -> None:
    nspawn.kill()
    nspawn.wait()
    cgroup.remove()


def _communicate(
    process: subprocess.Popen[bytes], cgroup: Cgroup, stdin: bytes, timeout: float | None
) -> tuple[bytes, int]:
    try:
        stdout, _ = process.communicate(stdin, timeout)
        return stdout, process.returncode
    except subprocess.TimeoutExpired:
        cgroup.kill()
        stdout, _ = process.communicate()
        return stdout, TIMED_OUT
    except BaseException:
        cgroup.kill()
        raise


def _text(output: bytes) -> str:
    return output.decode(errors="replace")


class _Notifications:
    """The socket on which nspawn tells how far the boot has come, as in sd_notify(3)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    def __enter__(self) -> "_Notifications":
        self._socket.bind(str(self.path))
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self.path.unlink()

    def wait_for(self, variable: str, nspawn: subprocess.Popen[bytes]) -> str | None:
        """Returns the value of `variable`, or nothing if nspawn or our patience ends."""
        deadline = time.monotonic() + BOOT_PATIENCE
        while time.monotonic() < deadline and nspawn.poll() is None:
            if not select.select([self._socket], [], [], 0.1)[0]:
                continue
            for line in self._socket.recv(4096).decode().splitlines():
                name, _, value = line.partition("=")
                if name == variable:
                    return value
        return None
