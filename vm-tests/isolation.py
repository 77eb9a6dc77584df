"""From inside the sandboxes: the proxy reaches no Docker socket, writes no file and reads no account
key; the watcher has no network. Each attempt runs with all settings of the unit, in place of its
program, and each has a counterpart that succeeds, so that a probe that cannot work is noticed."""


def tool(name: str) -> str:
    return machine.succeed(f"readlink -f $(command -v {name})").strip()


def inside(unit: str, command: str) -> tuple[int, str]:
    """Runs a shell command in the sandbox of a unit; gives its exit code and output."""
    drop_in = f"/run/systemd/system/{unit}.d/probe.conf"
    machine.succeed(
        "mkdir -p /etc/fairlead-test /run/systemd/system/" + unit + ".d",
        f"cat > /etc/fairlead-test/probe.sh <<'END'\n{command}\nEND",
        f"cat > {drop_in} <<'END'\n"
        "[Service]\nType=oneshot\nRestart=no\nWatchdogSec=0\nSockets=\nExecStartPre=\nExecStart=\nExecStopPost=\n"
        "ExecStart=/bin/sh /etc/fairlead-test/probe.sh\n"
        "StandardOutput=truncate:/tmp/probe-output\nStandardError=inherit\nEND",
        "systemctl daemon-reload",
    )
    machine.execute(f"systemctl restart {unit}")
    code = int(machine.get_unit_info(unit)["ExecMainStatus"])
    said = machine.succeed("cat /tmp/probe-output")
    machine.succeed(f"rm {drop_in}", "systemctl daemon-reload", f"systemctl reset-failed {unit} || true")
    return code, said


def allowed(unit: str, command: str) -> None:
    code, said = inside(unit, command)
    assert code == 0, f"{unit} could not: {command}\n{said}"


def denied(unit: str, command: str) -> None:
    code, said = inside(unit, command)
    assert code != 0, f"{unit} could: {command}\n{said}"


start_all()
machine.wait_for_unit("multi-user.target")
machine.wait_for_unit("docker.service")
# Programs that still come up have others started.
machine.wait_until_succeeds("systemctl stop 'fairlead-*'", timeout=30)
# The proxy's start begins a pass, and the reload after it would start the proxy again in the middle of a probe.
drop_in("fairlead-certs.service", "quiet", "[Service]", "ExecStopPost=")
curl = tool("curl")
touch = tool("touch")
ask_docker = f"{curl} -sSf --unix-socket /run/docker.sock http://docker/_ping"
ask_network = f"{curl} -sS -k -o /dev/null https://acme.test:14000/dir"

with subtest("only the watcher reaches Docker"):
    allowed("fairlead-watcher.service", ask_docker)
    allowed("fairlead-docker-events.service", ask_docker)
    denied("fairlead-proxy.service", ask_docker)
    denied("fairlead-certs.service", ask_docker)

with subtest("the proxy does not even see the socket"):
    denied("fairlead-proxy.service", "test -e /run/docker.sock")
    allowed("fairlead-proxy.service", "test -d /run/fairlead/challenges")

with subtest("the watcher has no network, the certs program has one"):
    acme.wait_for_unit("pebble.service")
    allowed("fairlead-certs.service", ask_network)
    denied("fairlead-watcher.service", ask_network)
    denied("fairlead-docker-events.service", ask_network)

with subtest("the proxy writes no file anywhere"):
    for place in ["/etc", "/etc/fairlead", "/var/lib/fairlead/routes", "/var/lib/fairlead/certificates",
                  "/run/fairlead", "/run/fairlead/challenges", "/run", "/var/tmp", "/home", "/root"]:
        denied("fairlead-proxy.service", f"{touch} {place}/probe")
    allowed("fairlead-watcher.service", f"{touch} /var/lib/fairlead/routes/.probe")
    allowed("fairlead-certs.service", f"{touch} /run/fairlead/challenges/probe")

with subtest("only the certs program reads the account key"):
    machine.succeed("install -m 0600 -o fairlead-certs /dev/null /var/lib/fairlead/account/probe.key")
    read = "exec 3</var/lib/fairlead/account/probe.key"
    allowed("fairlead-certs.service", read)
    denied("fairlead-proxy.service", read)
    denied("fairlead-watcher.service", read)

with subtest("the watcher writes routes and nothing of the others"):
    denied("fairlead-watcher.service", f"{touch} /var/lib/fairlead/certificates/probe")
    denied("fairlead-watcher.service", f"{touch} /etc/fairlead/routes.d/probe.toml")
    denied("fairlead-certs.service", f"{touch} /var/lib/fairlead/routes/probe.toml")

with subtest("only the watcher can ask for a reload, and it can ask systemd for nothing"):
    connect = "import socket; s = socket.socket(socket.AF_UNIX); s.connect('/run/fairlead/reload.sock'); print(s.recv(4096))"
    ask_reload = f'{tool("python3")} -c "{connect}" | grep outcome'
    ask_systemd = f"{tool('systemctl')} reload fairlead-proxy.service"
    machine.succeed("systemctl start fairlead-proxy.service", ask_reload, ask_systemd)
    allowed("fairlead-watcher.service", ask_reload)
    machine.succeed("systemctl stop fairlead-proxy.service")
    denied("fairlead-watcher.service", ask_systemd)
    denied("fairlead-docker-events.service", ask_systemd)
    denied("fairlead-proxy.service", ask_reload)
    denied("fairlead-certs.service", ask_reload)

with subtest("no program holds a capability"):
    for unit in ["fairlead-proxy", "fairlead-watcher", "fairlead-certs", "fairlead-docker-events"]:
        _, said = inside(f"{unit}.service", "while read -r line; do echo \"$line\"; done < /proc/self/status")
        effective = [line.split()[1] for line in said.splitlines() if line.startswith("CapEff:")]
        assert effective == ["0000000000000000"], f"{unit}: {effective}"
