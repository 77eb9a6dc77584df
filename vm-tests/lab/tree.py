"""The files of one machine: the cached root below, everything it changes in memory above."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lab.isolation import STATE, mount, unmount


@dataclass(frozen=True)
class Tree:
    """What a machine has on its disks. It outlives the machine's boots, and ends with the test."""

    directory: Path

    @property
    def root(self) -> Path:
        """The machine's /."""
        return self.directory / "root"

    def show(self, outside: Path, inside: str) -> None:
        """Lets the machine read a directory of the host. What it writes there goes nowhere."""
        place = self.root / inside
        place.mkdir(parents=True)
        mount("--bind", str(outside.resolve()), str(place))
        mount("-o", "remount,bind,ro", str(place))

    @property
    def docker(self) -> Path:
        """The machine's /var/lib/docker. Docker's overlays cannot lie on another overlay."""
        return self.directory / "docker"

    @property
    def console(self) -> Path:
        """What the machine said on its console."""
        return self.directory / "console"


@contextmanager
def fresh_tree(base: Path) -> Iterator[Tree]:
    """Yields a tree that starts as `base` and is thrown away afterwards. `base` never changes."""
    tree = Tree(Path(tempfile.mkdtemp(prefix="machine-", dir=STATE)))
    upper, work = tree.directory / "upper", tree.directory / "work"
    for directory in (tree.root, tree.docker, upper, work):
        directory.mkdir()
    layers = f"lowerdir={base},upperdir={upper},workdir={work}"
    mount("-t", "overlay", "-o", layers, "overlay", str(tree.root))
    try:
        yield tree
    finally:
        unmount(tree.root)
        shutil.rmtree(tree.directory)
