"""No connection is refused while the proxy restarts a hundred times, a long exchange is not cut by one, and a
proxy that cannot run does not close the ports."""

start_all()
machine.wait_for_unit("multi-user.target")
start_site()
write_route("site", '"app.test"', 'provider = "internal"')
machine.succeed("systemctl start fairlead-certs.service", "systemctl restart fairlead-proxy.service")
CURL = "curl -s -o /dev/null --max-time 30 --cacert /var/lib/fairlead/certificates/internal-ca.pem"
# For those who wait until the proxy can run again: all that comes before takes a busy machine half a minute.
PATIENT = "--max-time 600"
SOCKETS_ARE_OPEN = "systemctl is-active fairlead-http.socket fairlead-https.socket fairlead-admin.socket fairlead-reload.socket"
machine.wait_until_succeeds(f"{CURL} -f https://app.test/", timeout=30)

with subtest("a hundred restarts under steady requests: none refused"):
    ask_steadily(CURL)
    machine.succeed("for i in $(seq 100); do systemctl restart fairlead-proxy.service; done", timeout=600)
    end_asking("100 restarts")

with subtest("a drain may take longer than the unit's TimeoutStopSec"):
    drop_in("fairlead-proxy.service", "stop", "[Service]", "TimeoutStopSec=1s")
    machine.succeed(
        "mkdir /tmp/site/cgi-bin",
        "printf '#!/bin/sh\necho\necho begun\nsleep 4\necho finished\n' > /tmp/site/cgi-bin/slow",
        "chmod +x /tmp/site/cgi-bin/slow",
        "systemd-run --unit=download curl -s -N -o /tmp/download"
        " --cacert /var/lib/fairlead/certificates/internal-ca.pem https://app.test/cgi-bin/slow",
    )
    machine.wait_until_succeeds("grep -q begun /tmp/download", timeout=30)
    machine.succeed("systemctl restart fairlead-proxy.service")
    machine.wait_until_succeeds("grep -q finished /tmp/download", timeout=30)
    said = machine.succeed("journalctl --sync; journalctl -o cat -u fairlead-proxy.service")
    assert "stop-sigterm' timed out" not in said, said
    take_away("fairlead-proxy.service", "stop")

with subtest("a program that ends before it accepts a connection does not close the ports"):
    drop_in("fairlead-proxy.service", "crash", "[Service]", "ExecStart=", "ExecStart=/bin/false", "Restart=no")
    machine.execute("systemctl restart fairlead-proxy.service")
    machine.succeed(f"systemd-run --unit=early {CURL} {PATIENT} -f https://app.test/")
    # More than the twenty starts in two seconds that a socket has by default.
    machine.wait_until_succeeds(
        "journalctl --sync; test $(journalctl -u fairlead-proxy.service --grep=\"result 'exit-code'\" | wc -l) -ge 40",
        timeout=60,
    )
    machine.succeed(SOCKETS_ARE_OPEN)

with subtest("a crash loop does not close the ports"):
    drop_in("fairlead-proxy.service", "crash", "[Service]", "ExecStart=", "ExecStart=/bin/false")
    machine.execute("systemctl restart fairlead-proxy.service")
    machine.wait_until_succeeds(
        "test $(systemctl show -P NRestarts fairlead-proxy.service) -ge 8", timeout=60
    )
    machine.succeed(SOCKETS_ARE_OPEN)
    machine.succeed(f"systemd-run --unit=waiting {CURL} {PATIENT} -f https://app.test/")

with subtest("the connections made meanwhile are served once the proxy can run"):
    take_away("fairlead-proxy.service", "crash")
    machine.wait_until_succeeds(f"{CURL} -f https://app.test/", timeout=60)
    for waiting in ["early", "waiting"]:
        machine.wait_until_fails(f"systemctl is-active {waiting}.service", timeout=30)
        machine.fail(f"systemctl is-failed {waiting}.service")

with subtest("a proxy that hangs is replaced, and the connections that waited are served"):
    drop_in("fairlead-proxy.service", "watchdog", "[Service]", "WatchdogSec=2s")
    machine.succeed("systemctl restart fairlead-proxy.service")
    machine.succeed("kill -STOP $(systemctl show -P MainPID fairlead-proxy.service)")
    machine.succeed(f"{CURL} -f --max-time 30 https://app.test/")
    said = machine.succeed("journalctl --sync; journalctl -o cat -u fairlead-proxy.service")
    assert "Watchdog timeout" in said and "status=6/ABRT" in said, said
