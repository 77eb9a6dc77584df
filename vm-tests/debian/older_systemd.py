"""A systemd without `Type=notify-reload`: with the drop-ins that `./install` adds there, `systemctl reload` ends when the new
routes are live, and fails with the reason where they are refused."""

import json

RELEASE = "bookworm"
INSTALL = "/usr/src/fairlead/install"
INTERNAL = 'provider = "internal"'
CURL = "curl -sf --max-time 30 --cacert /var/lib/fairlead/certificates/internal-ca.pem"
DROP_INS = ["fairlead-.service.d/60-restart.conf", "fairlead-proxy.service.d/60-reload.conf"]


def install(*arguments: str) -> str:
    return machine.succeed(f"{INSTALL} {' '.join(arguments)} 2>&1")


def drop_ins(of: str = "fairlead") -> list[str]:
    """Those of an installation; all have names that begin with fairlead."""
    found = machine.succeed("cd /usr/lib/systemd/system && find -path '*/fairlead-*/60-*' -printf '%P\\n' | sort")
    return [path for path in found.splitlines() if path.startswith((f"{of}-.", f"{of}-proxy."))]


def start_units(of: str = "fairlead") -> None:
    units = ["http.socket", "https.socket", "admin.socket", "reload.socket", "proxy.service"]
    units += ["certs.path", "certs.timer", "deliver.path"]
    machine.succeed("systemctl enable --now " + " ".join(f"{of}-{unit}" for unit in units))


def routes_loaded(of: str = "fairlead") -> int:
    status = machine.succeed(f"curl -sf --unix-socket /run/{of}/admin.sock http://admin/status")
    return json.loads(status)["loaded"]["routes"]


start_all()
machine.wait_for_unit("multi-user.target")
start_site()
# This machine has no name server.
machine.succeed("echo 127.0.0.1 app.test b.test c.test >> /etc/hosts")

with subtest("the drop-ins go with the rest"):
    assert machine.succeed("systemctl --version").startswith("systemd 252 ")
    assert drop_ins() == DROP_INS
    install("--remove --instance internal")
    assert drop_ins() == DROP_INS
    install("--remove")
    machine.succeed("test ! -e /usr/lib/systemd/system/fairlead-proxy.service.d")

with subtest("they come with the rest, and a site from a file of routes is served"):
    write_route("one", '"app.test"', INTERNAL)
    install("--bin-dir /usr/src/fairlead-programs")
    assert drop_ins() == DROP_INS
    start_units()
    machine.wait_until_succeeds(f"{CURL} https://app.test/ | grep -x hello", timeout=30)
    assert machine.get_unit_property("fairlead-proxy.service", "Type") == "notify"

with subtest("they are for what this systemd does not know, and it knows everything else"):
    units = "/usr/lib/systemd/system/fairlead-*.{service,socket,path,timer}"
    said = machine.execute(f"systemd-analyze verify --man=no {units} 2>&1")[1]
    unknown = ["notify-reload", "'RestartSteps'", "'RestartMaxDelaySec'"]
    faults = [line for line in said.splitlines() if "fairlead" in line]
    assert faults and all(any(key in line for key in unknown) for line in faults), said
    assert machine.get_unit_property("fairlead-proxy.service", "RestartUSec") == "1s"

with subtest("a valid change is live when the reload of the unit has ended, and gets its certificate"):
    write_route("two", '"b.test"', INTERNAL)
    machine.succeed("systemctl reload fairlead-proxy.service")
    assert routes_loaded() == 2
    machine.wait_until_succeeds(f"{CURL} https://b.test/ | grep -x hello", timeout=30)

with subtest("a reload with nothing changed is none"):
    machine.succeed("systemctl reload fairlead-proxy.service")

with subtest("an invalid change fails the reload, with the reason in the journal and the status, and the old routes serve"):
    write_route("two", '"b.test"', 'upstream = "http://127.0.0.1:8001"')
    machine.fail("systemctl reload fairlead-proxy.service")
    machine.succeed("journalctl --sync", "journalctl --unit=fairlead-proxy.service | grep 'two.toml:4.*upstreams'")
    status = machine.get_unit_property("fairlead-proxy.service", "StatusText")
    assert "reload refused" in status and "two.toml:4" in status, status
    machine.require_unit_state("fairlead-proxy.service")
    machine.succeed(f"{CURL} https://app.test/", f"{CURL} https://b.test/")

with subtest("fairlead reload refuses it too, also where it has to ask systemd for the reload"):
    code, said = machine.execute("fairlead reload 2>&1")
    assert code == 1 and "two.toml:4" in said, said
    # Out of the slice where it looks for the unit's process.
    drop_in("fairlead-proxy.service", "slice", "[Service]", "Slice=elsewhere.slice")
    machine.succeed("systemctl restart fairlead-proxy.service")
    code, said = machine.execute("fairlead reload 2>&1")
    assert code == 1 and "two.toml:4" in said and "systemctl" not in said, said
    write_route("two", '"b.test"', INTERNAL)
    machine.succeed("fairlead reload")
    assert routes_loaded() == 2
    take_away("fairlead-proxy.service", "slice")
    machine.succeed("systemctl restart fairlead-proxy.service")

with subtest("of many reloads at once, of either kind, each ends when what was there before it is live"):
    ask_steadily(CURL.replace(" -sf ", " -s -o /dev/null "))
    machine.succeed(
        "cat > /tmp/storm.sh <<'END'\n"
        "route=/etc/fairlead/routes.d/storm$1.toml\n"
        'printf \'[[route]]\\nhosts = ["s%s.test"]\\nredirect = "https://app.test"\\nprovider = "internal"\\n\' $1 > $route.new\n'
        "mv $route.new $route\n"
        "if [ $(($1 % 2)) = 0 ]; then fairlead reload; else systemctl reload fairlead-proxy.service; fi || exit\n"
        "curl -s --unix-socket /run/fairlead/admin.sock http://admin/status | grep -q storm$1.toml\n"
        "END",
        "seq 40 | xargs --max-procs=10 --max-args=1 bash /tmp/storm.sh",
        timeout=60,
    )
    end_asking("forty reloads")
    machine.wait_until_succeeds("systemctl show -P ActiveState fairlead-proxy.service | grep -x active", timeout=10)
    machine.succeed("rm /etc/fairlead/routes.d/storm*", "systemctl reload fairlead-proxy.service")
    assert routes_loaded() == 2

with subtest("the proxy may not write where its reload may"):
    pid = machine.get_unit_property("fairlead-proxy.service", "MainPID")
    inside = f"nsenter --target={pid} --mount"
    as_proxy = f"{inside} setpriv --reuid=fairlead-proxy --regid=fairlead --clear-groups"
    machine.succeed(
        f"{inside} touch /run/fairlead/certs/probe",
        f"{as_proxy} test -d /run/fairlead/certs",
        "rm /run/fairlead/certs/probe",
    )
    machine.fail(f"{as_proxy} touch /run/fairlead/certs/probe")

with subtest("a stop finishes what has begun"):
    machine.succeed(
        "mkdir /tmp/site/cgi-bin",
        "cat > /tmp/site/cgi-bin/slow <<'END'\n"
        "#!/bin/sh\ntouch /tmp/begun\nprintf 'Content-Type: text/plain\\r\\n\\r\\n'\nsleep 2\necho finished\nEND",
        "chmod +x /tmp/site/cgi-bin/slow",
        f"systemd-run --unit=slow sh -c '{CURL} https://app.test/cgi-bin/slow > /tmp/answer'",
    )
    machine.wait_for_file("/tmp/begun", timeout=10)
    machine.succeed("systemctl stop fairlead-proxy.service")
    machine.wait_until_succeeds("grep -x finished /tmp/answer", timeout=10)
    assert machine.get_unit_property("fairlead-proxy.service", "Result") == "success"

with subtest("an instance has its own"):
    install("--instance internal")
    own = [path.replace("fairlead", "fairlead-internal") for path in DROP_INS]
    assert drop_ins("fairlead-internal") == own, drop_ins("fairlead-internal")
    for unit, port in [("http", 8081), ("https", 8444)]:
        drop_in(f"fairlead-internal-{unit}.socket", "port", "[Socket]", "ListenStream=", f"ListenStream={port}")
    start_units("fairlead-internal")
    machine.succeed(
        "cp /etc/fairlead/routes.d/one.toml /etc/fairlead-internal/routes.d/",
        "systemctl reload fairlead-internal-proxy.service",
    )
    assert routes_loaded("fairlead-internal") == 1
    machine.succeed("echo broken > /etc/fairlead-internal/routes.d/one.toml")
    machine.fail("systemctl reload fairlead-internal-proxy.service")
    install("--remove --instance internal")
    assert drop_ins("fairlead-internal") == []

with subtest("for a newer systemd they are taken away, and all goes in the end"):
    install("--bin-dir /usr/src/fairlead-programs")
    assert drop_ins() == DROP_INS
    install("--bin-dir /usr/src/fairlead-programs --systemd 257")
    assert drop_ins() == []
    install("--bin-dir /usr/src/fairlead-programs")
    install("--remove")
    units = machine.succeed("systemctl list-unit-files --plain --no-legend 'fairlead*' || true")
    assert units == "" and drop_ins() == [], units
