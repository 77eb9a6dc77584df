"""What the proxy says of a route is found in the journal by the route's name, and its access log goes
where systemd sends it."""

import json

FIELDS = "FAIRLEAD_ROUTE=app.test FAIRLEAD_HOST=www.app.test FAIRLEAD_STATUS=200"


def ask(path: str) -> None:
    machine.succeed(f"curl -s -o /dev/null -H 'Host: www.app.test' http://127.0.0.1{path}")


start_all()
machine.wait_for_unit("sockets.target")
start_site()
machine.succeed("printf '\\n[proxy]\\naccess-log = \"json\"\\n' >> /etc/fairlead/fairlead.toml")
write_route("app", '"app.test", "www.app.test"', 'provider = "internal"', "https-only = false")

with subtest("a line of the access log is found by its route"):
    machine.succeed("systemctl restart fairlead-proxy.service")
    ask("/index.html?one")
    machine.wait_until_succeeds(f"journalctl -t fairlead-access {FIELDS} | grep -q one", timeout=10)
    entry = json.loads(machine.succeed(f"journalctl -t fairlead-access {FIELDS} -o json -n 1"))
    assert entry["_SYSTEMD_UNIT"] == "fairlead-proxy.service", entry
    line = json.loads(entry["MESSAGE"])
    assert line["path"] == "/index.html?one" and line["upstream"] == "http://127.0.0.1:8001", line

with subtest("the other messages of the proxy have their route as well"):
    machine.succeed("systemctl stop site.service")
    ask("/two")
    machine.wait_until_succeeds(
        "journalctl -u fairlead-proxy.service FAIRLEAD_ROUTE=app.test FAIRLEAD_STATUS=502 | grep -q two", timeout=10
    )
    machine.wait_until_succeeds(
        "journalctl -u fairlead-proxy.service FAIRLEAD_UPSTREAM=http://127.0.0.1:8001"
        " | grep -q 'no connection to an upstream'",
        timeout=10,
    )

with subtest("systemd can send the lines to a file, and the messages stay in the journal"):
    drop_in(
        "fairlead-proxy.service",
        "file",
        "[Service]",
        "StandardOutput=append:/var/log/fairlead-access.log",
        "StandardError=journal",
    )
    machine.succeed("systemctl restart fairlead-proxy.service")
    ask("/three")
    machine.wait_until_succeeds("grep -q /three /var/log/fairlead-access.log", timeout=10)
    machine.fail("journalctl -t fairlead-access | grep -q /three")
    lines = machine.succeed("cat /var/log/fairlead-access.log").splitlines()
    assert [json.loads(line)["path"] for line in lines] == ["/three"], lines
