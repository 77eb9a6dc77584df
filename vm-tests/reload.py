"""A valid change is live when the reload has ended; an invalid one is refused with its reason, and
the old routes keep serving."""

import json

INTERNAL = 'provider = "internal"'


def status() -> dict:
    return json.loads(machine.succeed("curl -sf --unix-socket /run/fairlead/admin.sock http://admin/status"))


def page(host: str) -> str:
    curl = f"curl -sf --cacert /var/lib/fairlead/certificates/internal-ca.pem https://{host}/"
    return machine.succeed(curl).strip()


start_all()
machine.wait_for_unit("multi-user.target")
start_site()
machine.succeed("systemctl start fairlead-proxy.service")

with subtest("a valid change is live when the command has ended"):
    write_route("one", '"app.test"', INTERNAL)
    machine.succeed("fairlead reload")
    assert status()["loaded"]["routes"] == 1

with subtest("the certificate follows without another command"):
    machine.wait_until_succeeds(
        "curl -sf --cacert /var/lib/fairlead/certificates/internal-ca.pem https://app.test/", timeout=30
    )
    assert page("app.test") == "hello"

with subtest("a reload with nothing changed does nothing"):
    reloads = status()["reloads"]
    machine.succeed("fairlead reload")
    assert status()["reloads"] == reloads

with subtest("an invalid change is refused with file, line and reason, and the old routes serve"):
    write_route("two", '"b.test"', 'upstream = "http://127.0.0.1:8001"')
    code, said = machine.execute("fairlead reload 2>&1")
    assert code == 1, f"{code}: {said}"
    assert "/etc/fairlead/routes.d/two.toml:4" in said and "upstreams" in said, said
    assert page("app.test") == "hello"

with subtest("the refusal stands in the unit's status and in fairlead status"):
    assert "refused" in machine.get_unit_info("fairlead-proxy.service")["StatusText"]
    code, said = machine.execute("fairlead status 2>&1")
    assert code == 1 and "two.toml:4" in said, said

with subtest("a unit that needs the change fails with the reason"):
    # A new container makes the watcher reload, which finds the operator's file still wrong.
    machine.wait_for_unit("docker.service")
    machine.succeed("docker load -i /etc/fairlead-test/image.tar")
    machine.succeed("docker run -d --name web --label fairlead.hosts=c.test fairlead-test/site")
    machine.wait_until_succeeds("systemctl is-failed fairlead-watcher.service", timeout=30)
    machine.wait_until_succeeds("journalctl -u fairlead-watcher.service | grep -q two.toml:4", timeout=10)
    assert page("app.test") == "hello"

with subtest("the corrected file is live, together with what waited for it"):
    write_route("two", '"b.test"', INTERNAL)
    machine.succeed("fairlead reload")
    assert status()["loaded"]["routes"] == 3
    machine.succeed("fairlead status")

with subtest("systemctl reload works too"):
    machine.succeed("rm /etc/fairlead/routes.d/two.toml", "systemctl reload fairlead-proxy.service")
    assert status()["loaded"]["routes"] == 2
    assert page("app.test") == "hello"
