"""The Debian system that every machine starts from: made once, then only read."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PACKAGES = (
    # the system
    "systemd",
    "systemd-sysv",
    "dbus",
    "udev",
    "procps",
    "iproute2",
    "ca-certificates",
    # what test scripts call
    "busybox-static",
    "curl",
    "openssl",
)
NEIGHBOURS = (
    # those of fairlead
    "docker.io",
    "docker-cli",
    "podman",
    "netavark",
    "iptables",
    "pebble",
    # what talks to them
    "jq",
    "python3-minimal",
)
RELEASE = "trixie"
"""What a test runs on that names none."""

RELEASES = {RELEASE: PACKAGES + NEIGHBOURS, "bookworm": PACKAGES}
"""The packages of each. One with an older systemd has no neighbours."""

ON_DEMAND = ("docker.service", "containerd.service")
"""dockerd starts at the first word on its socket: a machine that needs no Docker boots faster."""

UNWANTED = ("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "fstrim.timer")


def cached_root(release: str) -> Path:
    """Returns the root directory of a Debian system, which is built if there is none yet.

    A root is found by the hash of this file, so a change to the recipe makes new ones. It appears
    under its name only when it is complete. The old ones stay until someone deletes them.
    """
    cache = Path(os.environ.get("FAIRLEAD_LAB_CACHE", "/var/cache/fairlead-lab"))
    recipe = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    root = cache / f"root-{release}-{recipe[:16]}"
    if not root.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with _locked(cache / "lock"):
            if not root.is_dir():
                _build(release, root)
    return root


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(release: str, root: Path) -> None:
    """Builds beside `root` and renames. The caller holds the lock, so other attempts are dead."""
    for dead in root.parent.glob("building-*"):
        shutil.rmtree(dead)
    building = Path(tempfile.mkdtemp(prefix="building-", dir=root.parent))
    print(f"building the root of the machines with {release}, once: {root}", flush=True)
    try:
        _debootstrap(release, building)
        _configure(building)
        building.chmod(0o755)
        building.rename(root)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise


def _debootstrap(release: str, root: Path) -> None:
    """Runs debootstrap in a process namespace, so that none of its children outlives a Ctrl-C."""
    contained = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    include = f"--include={','.join(RELEASES[release])}"
    command = ["debootstrap", "--variant=minbase", include, release, str(root), _mirror()]
    with tempfile.TemporaryDirectory() as directory:
        downloads = Path(directory) / "wgetrc"
        downloads.write_text(_wget_settings())
        environment = {**os.environ, "WGETRC": str(downloads)}
        with tempfile.TemporaryFile("w+") as log:
            result = subprocess.run(
                contained + command, env=environment, stdout=log, stderr=subprocess.STDOUT
            )
            log.seek(0)
            if result.returncode != 0:
                raise RuntimeError(f"debootstrap failed:\n{log.read()[-4000:]}")


def _configure(root: Path) -> None:
    units = root / "usr/lib/systemd/system"
    disabled = [unit for unit in (*ON_DEMAND, *UNWANTED) if (units / unit).exists()]
    subprocess.run(["systemctl", f"--root={root}", "--quiet", "disable", *disabled], check=True)
    subprocess.run(["chroot", str(root), "apt-get", "clean"], check=True)
    (root / "etc/hostname").write_text("machine\n")


def _mirror() -> str:
    """Returns the Debian archive that this host's apt uses."""
    targets = ["apt-get", "indextargets", "--format", "$(LABEL) $(REPO_URI)", "Created-By: Packages"]
    for line in _output(targets).splitlines():
        label, _, uri = line.partition(" ")
        if label == "Debian":
            return uri
    raise RuntimeError("apt knows no Debian archive here; apt-get update may help")


def _wget_settings() -> str:
    """Returns what apt knows about proxies and authorities in the words of wget."""
    settings = {
        "http_proxy": _apt("Acquire::http::Proxy"),
        "https_proxy": _apt("Acquire::https::Proxy"),
        "ca_certificate": _apt("Acquire::https::CaInfo"),
    }
    return "".join(f"{key} = {value}\n" for key, value in settings.items() if value)


def _apt(setting: str) -> str:
    return _output(["apt-config", "dump", "--no-empty", "--format", "%v%n", setting]).strip()


def _output(command: list[str]) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
