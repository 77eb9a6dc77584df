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

with subtest("a pass that changes nothing asks for no reload, whatever else is wrong"):
    machine.wait_for_unit("docker.service")
    machine.succeed("docker load -i /etc/fairlead-test/image.tar", "systemctl start fairlead-watcher.service")
    reloads = status()["reloads"]
    machine.succeed("systemctl start fairlead-watcher.service")
    assert status()["reloads"] == reloads

with subtest("a unit that needs the change fails with the reason"):
    # A new container makes the watcher ask for a reload, which finds the operator's file still wrong.
    machine.succeed("docker run -d --name web --label fairlead.hosts=c.test fairlead-test/site")
    machine.wait_until_succeeds("systemctl is-failed fairlead-watcher.service", timeout=30)
    machine.wait_until_succeeds("journalctl -u fairlead-watcher.service | grep two.toml:4", timeout=10)
    assert page("app.test") == "hello"

with subtest("the corrected file is live, together with what waited for it"):
    write_route("two", '"b.test"', INTERNAL)
    machine.succeed("fairlead reload")
    assert status()["loaded"]["routes"] == 3
    # Between a pass that stores a certificate and its reload, the disk is ahead.
    machine.wait_until_succeeds("fairlead status", timeout=30)

with subtest("the watcher's unit asks until it is so, and has no more to say then"):
    machine.succeed("systemctl start fairlead-watcher.service", "test ! -e /run/fairlead/watcher/unloaded")
    failed = machine.succeed("systemctl list-units --failed --plain --no-legend 'fairlead-*'")
    assert failed == "", failed

with subtest("a change is live when the watcher's unit has ended"):
    machine.succeed("systemctl stop fairlead-docker-events.service fairlead-watcher.path")
    machine.succeed("docker run -d --name late --label fairlead.hosts=d.test fairlead-test/site")
    assert status()["loaded"]["routes"] == 3
    machine.succeed("systemctl start fairlead-watcher.service")
    assert status()["loaded"]["routes"] == 4

with subtest("a proxy that does not run is started for the watcher, and has the routes"):
    machine.succeed(
        "systemctl stop fairlead-proxy.service",
        "docker stop late",
        "systemctl start fairlead-watcher.service",
    )
    machine.require_unit_state("fairlead-proxy.service")
    assert status()["loaded"]["routes"] == 3
    machine.succeed("docker start late", "systemctl start fairlead-watcher.service")
    # The reload at the end of a pass that the watcher asked for would load what it cannot have loaded here.
    stop_passes_of_certs()

with subtest("routes are written even where no reload can be asked for, and the unit says so"):
    machine.succeed(
        "systemctl stop fairlead-reload.socket",
        "docker run -d --name later --label fairlead.hosts=e.test fairlead-test/site",
    )
    machine.fail("systemctl start fairlead-watcher.service")
    machine.succeed("grep -q e.test /var/lib/fairlead/routes/docker.toml")
    machine.wait_until_succeeds("journalctl -u fairlead-watcher.service | grep 'is fairlead-reload.socket started'", timeout=10)
    assert status()["loaded"]["routes"] == 4
    # systemd opens no socket of a service that runs.
    machine.succeed(
        "systemctl restart fairlead-proxy.service",
        "systemctl start fairlead-watcher.service",
    )
    assert status()["loaded"]["routes"] == 5

with subtest("routes that a restart of the proxy finds get their certificate as after a reload"):
    # No pass of the reload before may find the route.
    stop_passes_of_certs()
    write_route("three", '"f.test"', INTERNAL)
    machine.succeed("systemctl restart fairlead-proxy.service")
    machine.wait_until_succeeds(
        "curl -sf --cacert /var/lib/fairlead/certificates/internal-ca.pem https://f.test/", timeout=30
    )
    machine.succeed("rm /etc/fairlead/routes.d/three.toml", "fairlead reload")

with subtest("a directory that is gone takes no route along, and an empty one in its place does"):
    machine.succeed("mv /etc/fairlead/routes.d /etc/fairlead/aside")
    code, said = machine.execute("fairlead reload 2>&1")
    assert code == 1 and "/etc/fairlead/routes.d: the directory is gone" in said, said
    assert page("app.test") == "hello"
    machine.succeed("mkdir /etc/fairlead/routes.d", "fairlead reload")
    assert status()["loaded"]["routes"] == 3
    machine.succeed("rmdir /etc/fairlead/routes.d", "mv /etc/fairlead/aside /etc/fairlead/routes.d", "fairlead reload")
    assert status()["loaded"]["routes"] == 5

with subtest("systemctl reload works too"):
    machine.succeed("rm /etc/fairlead/routes.d/two.toml", "systemctl reload fairlead-proxy.service")
    assert status()["loaded"]["routes"] == 4
    assert page("app.test") == "hello"
