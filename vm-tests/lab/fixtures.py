"""What a test machine has beyond Debian: the test's neighbours, and fairlead itself."""

import shutil
import subprocess
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
FIXTURES = PROJECT / "vm-tests/fixtures"
STEPS = FIXTURES / "steps.py"
UNITS = PROJECT / "systemd/system"
INSTANCE = "internal"
OPTIONAL = ("fairlead-metrics.socket",)
NEIGHBOURS = ("pebble.service", "pebble-challtestsrv.service")


class NotInstalled(Exception):
    """A step of the installation failed; the text is what it said."""


def install_neighbours(root: Path) -> None:
    """Puts /etc/fairlead-test below `root`, and has Pebble and the machine's name server started if it has them."""
    shutil.copytree(FIXTURES / "root", root, dirs_exist_ok=True)
    files = root / "etc/fairlead-test"
    _run(str(FIXTURES / "make"), str(files), str(root / "bin/busybox"))
    with (root / "etc/ssl/certs/ca-certificates.crt").open("a") as trusted:
        trusted.write((files / "ca.pem").read_text())
    if (root / "usr/bin/pebble").exists():
        _enable(root, *NEIGHBOURS)


def install_fairlead(root: Path, programs: Path) -> None:
    """Installs the built `programs` and everything around them, and enables the units that every site needs.

    A second installation, `INSTANCE`, is there for tests that want it; none of its units is enabled.
    """
    where = ("--destdir", str(root), "--prefix", "/usr", "--systemd", _systemd_of(root))
    _run(str(PROJECT / "install"), *where, "--bin-dir", str(programs))
    _run(str(PROJECT / "install"), *where, "--instance", INSTANCE)
    _run("chroot", str(root), "systemd-sysusers")
    _enable(root, *sorted(unit.name for unit in UNITS.glob("*.*") if _can_be_enabled(unit)))


def _systemd_of(root: Path) -> str:
    """Returns the version that boots there, from a line such as `systemd 257 (257.9-1)`."""
    return _run("chroot", str(root), "systemctl", "--version").split()[1]


def _can_be_enabled(unit: Path) -> bool:
    return unit.is_file() and unit.name not in OPTIONAL and "[Install]" in unit.read_text().splitlines()


def _enable(root: Path, *units: str) -> None:
    _run("systemctl", f"--root={root}", "--quiet", "enable", *units)


def _run(*command: str) -> str:
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0:
        raise NotInstalled(f"{command[0]}: {result.stderr.strip()}")
    return result.stdout
