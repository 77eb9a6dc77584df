"""Mounts and control groups of our own: what happens in here never shows outside."""

import ctypes
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
STATE = Path("/run/systemd/nspawn")
"""Where nspawn keeps its state. For us it is a tmpfs of our own, and holds the machines as well."""

RUN = "fairlead-lab-"
"""The control group of a run is named after its process."""

CLONE_NEWNS = 0x00020000


def isolate() -> None:
    """Gives this process and its children mounts of their own.

    They vanish with the last of these processes, however it ends, and with them every file of every
    machine: `STATE` lies in memory. Control groups are version 2 in here, whatever the host has.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "cannot have mounts of our own")
    mount("--make-rprivate", "/")
    STATE.mkdir(parents=True, exist_ok=True)
    mount("-t", "tmpfs", "-o", "mode=0755", "tmpfs", str(STATE))
    if not (CGROUPS / "cgroup.controllers").exists():
        subprocess.run(["umount", "--recursive", str(CGROUPS)], check=True)
        # Else the kernel waits for all processors whenever a process comes into a group, 15 ms for each start of a unit.
        mount("-t", "cgroup2", "-o", "favordynmods", "cgroup2", str(CGROUPS))


def mount(*arguments: str) -> None:
    """Calls mount(8)."""
    subprocess.run(["mount", *arguments], check=True)


def unmount(path: Path) -> None:
    """Takes `path` out of sight at once, even if someone still uses it."""
    subprocess.run(["umount", "--lazy", "--recursive", str(path)], check=True)


def end_orphans() -> None:
    """Ends the machines of runs that were killed before they could do so themselves."""
    for path in Cgroup.of(os.getpid()).path.glob(f"{RUN}*"):
        if not Path("/proc", path.name.removeprefix(RUN)).exists():
            Cgroup(path).remove()


@dataclass(frozen=True)
class Cgroup:
    """A control group: processes that can be ended together, those included that they started."""

    path: Path

    @classmethod
    def of(cls, process: int) -> "Cgroup":
        """Returns the group that `process` is in."""
        lines = Path(f"/proc/{process}/cgroup").read_text().splitlines()
        unified = next(line for line in lines if line.startswith("0::"))
        return cls(CGROUPS / unified.removeprefix("0::/"))

    def child(self, name: str) -> "Cgroup":
        """Returns the group `name` inside this one, and makes it if need be."""
        path = self.path / name
        path.mkdir(parents=True, exist_ok=True)
        return Cgroup(path)

    def enter(self) -> None:
        """Moves the calling process here."""
        (self.path / "cgroup.procs").write_text("0")

    def kill(self) -> None:
        """Kills everything in here and below."""
        (self.path / "cgroup.kill").write_text("1")

    def remove(self, patience: float = 10.0) -> None:
        """Kills and removes the group; the kernel takes a moment to see the last process off."""
        deadline = time.monotonic() + patience
        while self.path.exists():
            self.kill()
            try:
                self._remove_directories()
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def _remove_directories(self) -> None:
        for directory, _, _ in os.walk(self.path, topdown=False):
            os.rmdir(directory)
