"""The sockets listen before any program runs; the first connection starts the proxy, and it finds
each listener by its name, whatever order systemd hands them over in."""

import json


def listens(port: int) -> None:
    # Asks the kernel: a connection would start the proxy.
    machine.succeed(f"ss -Hltn 'sport = :{port}' | grep -q LISTEN")


def status() -> dict:
    return json.loads(machine.succeed("curl -sf --unix-socket /run/fairlead/admin.sock http://admin/status"))


def answers_by_name() -> None:
    code = machine.succeed("curl -s -o /dev/null -w '%{http_code}' -H 'Host: nobody.test' http://127.0.0.1/")
    assert code == "404", f"port 80 answered {code} for a name that nobody declared"
    handshake = machine.succeed(
        "openssl s_client -connect 127.0.0.1:443 -servername nobody.test </dev/null 2>&1 || true"
    )
    assert "unrecognized name" in handshake, f"port 443 did not answer with the TLS alert:\n{handshake}"
    assert status()["loaded"]["routes"] == 0


start_all()
machine.wait_for_unit("multi-user.target")

with subtest("the ports listen while the proxy does not run"):
    # A pass of the watcher would have it started, as any client has; so would the reload after one of the certs program
    # that finds the proxy still about to end.
    machine.succeed(
        "systemctl stop fairlead-docker-events.service fairlead-{watcher,certs}.{timer,path}",
        "systemctl stop fairlead-watcher.service fairlead-certs.service",
        "systemctl stop fairlead-proxy.service",
    )
    listens(80)
    listens(443)
    machine.succeed("test -S /run/fairlead/admin.sock")
    assert machine.get_unit_info("fairlead-proxy.service")["ActiveState"] == "inactive"

with subtest("the first connection starts the proxy, and each listener speaks its own protocol"):
    answers_by_name()
    machine.wait_for_unit("fairlead-proxy.service")

with subtest("listeners are told apart by name, not by the order of the unit"):
    drop_in(
        "fairlead-proxy.service",
        "order",
        "[Service]",
        "Sockets=",
        "Sockets=fairlead-reload.socket fairlead-admin.socket fairlead-https.socket fairlead-http.socket",
    )
    machine.succeed("systemctl restart fairlead-proxy.service")
    answers_by_name()

with subtest("the status line says what is served"):
    text = machine.get_unit_info("fairlead-proxy.service")["StatusText"]
    assert "0 routes" in text, text

with subtest("nothing listens for Prometheus until somebody wants it"):
    machine.fail("ss -Hltn 'sport = :9180' | grep -q LISTEN")

with subtest("the socket for Prometheus comes with a restart of the proxy, and tells nothing but metrics"):
    machine.succeed(
        "systemctl enable --runtime fairlead-metrics.socket",
        "systemctl restart fairlead-proxy.service",
    )
    machine.require_unit_state("fairlead-metrics.socket")
    listens(9180)
    assert "fairlead_routes 0" in machine.succeed("curl -sf http://127.0.0.1:9180/metrics")
    code = machine.succeed("curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:9180/status")
    assert code == "404", code
    answers_by_name()
