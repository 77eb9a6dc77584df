"""What the proxy says of a route is found in the journal by the route's name, and its access log goes
where systemd sends it."""

import json

FIELDS = "FAIRLEAD_ROUTE=app.test FAIRLEAD_HOST=www.app.test FAIRLEAD_STATUS=200"


def ask(path: str) -> None:
    machine.succeed(f"curl -s -o /dev/null -H 'Host: www.app.test' http://127.0.0.1{path}")


def messages(unit: str, *fields_and_text: str) -> None:
    """Waits for a message of the unit with these fields, all on one message, and this text in it."""
    *fields, text = fields_and_text
    # Of the same field twice, journalctl itself would take either.
    found = f"journalctl -u {unit}.service -o export {fields[0]}"
    entries = f"{found} | awk -v RS= '/{text}/" + "".join(f' && index($0, "{field}")' for field in fields) + "'"
    machine.wait_until_succeeds(f"{entries} | grep .", timeout=30)


start_all()
machine.wait_for_unit("sockets.target")
start_site()
machine.succeed("printf '\\n[proxy]\\naccess-log = \"json\"\\n' >> /etc/fairlead/fairlead.toml")
write_route("app", '"app.test", "www.app.test"', 'provider = "internal"', "https-only = false")

with subtest("a line of the access log is found by its route"):
    machine.succeed("systemctl restart fairlead-proxy.service")
    ask("/index.html?one")
    machine.wait_until_succeeds(f"journalctl -t fairlead-access {FIELDS} | grep one", timeout=10)
    entry = json.loads(machine.succeed(f"journalctl -t fairlead-access {FIELDS} -o json -n 1"))
    assert entry["_SYSTEMD_UNIT"] == "fairlead-proxy.service", entry
    line = json.loads(entry["MESSAGE"])
    assert line["path"] == "/index.html?one" and line["upstream"] == "http://127.0.0.1:8001", line

with subtest("the other messages of the proxy have their route as well"):
    machine.succeed("systemctl stop site.service")
    ask("/two")
    machine.wait_until_succeeds(
        "journalctl -u fairlead-proxy.service FAIRLEAD_ROUTE=app.test FAIRLEAD_STATUS=502 | grep two", timeout=10
    )
    machine.wait_until_succeeds(
        "journalctl -u fairlead-proxy.service FAIRLEAD_UPSTREAM=http://127.0.0.1:8001"
        " | grep 'no connection to an upstream'",
        timeout=10,
    )

with subtest("an upstream that is gone is said with the route that needed it"):
    messages("fairlead-proxy", "FAIRLEAD_ROUTE=app.test", "FAIRLEAD_UPSTREAM=http://127.0.0.1:8001", "no connection to")

with subtest("the line that people read says why, and of whom, without a look at the fields"):
    read = "journalctl -o cat -u fairlead-proxy.service | grep 'no connection to an upstream'"
    said = machine.succeed(read).splitlines()[0]
    for part in ["Connection refused", "upstream=http://127.0.0.1:8001", "route=app.test"]:
        assert part in said, said

with subtest("what is said of a certificate has its name"):
    # The proxy may have read the route when it started, of which the certs program hears only from its timer.
    machine.succeed("systemctl start fairlead-certs.service")
    messages("fairlead-certs", "FAIRLEAD_CERTIFICATE=app.test", "obtained from")
    machine.succeed("journalctl -o cat -u fairlead-certs.service | grep 'obtained from .*certificate=app.test'")

with subtest("what is said of a route has the names of all its containers"):
    machine.wait_for_unit("docker.service")
    machine.wait_for_unit("fairlead-docker-events.service")
    machine.succeed("docker load -i /etc/fairlead-test/image.tar")
    for name in ["web-1", "web-2"]:
        labels = "--label fairlead.hosts=web.test --label com.docker.compose.project=p --label com.docker.compose.service=s"
        machine.succeed(f"docker run -d --name {name} {labels} fairlead-test/site")
    messages("fairlead-watcher", "FAIRLEAD_ROUTE=web.test", "FAIRLEAD_CONTAINER=web-1", "FAIRLEAD_CONTAINER=web-2", "web.test →")
    messages("fairlead-watcher", "FAIRLEAD_ROUTE=web.test", "FAIRLEAD_CONTAINER=web-1", "added web.test")

with subtest("a container that is left out is found by its name"):
    machine.succeed("docker run -d --name wrong --label fairlead.hosts=a.test --label fairlead.port=0 fairlead-test/site")
    messages("fairlead-watcher", "FAIRLEAD_CONTAINER=wrong", "left out")

with subtest("a fault in a file is found by the file"):
    write_route("wrong", '"b.test"', 'upstream = "x"')
    machine.fail("fairlead reload")
    messages("fairlead-proxy", "FAIRLEAD_FILE=/etc/fairlead/routes.d/wrong.toml", "wrong.toml:4")
    machine.succeed("rm /etc/fairlead/routes.d/wrong.toml", "fairlead reload")

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
