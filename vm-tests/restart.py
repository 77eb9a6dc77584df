"""No connection is refused while the proxy restarts a hundred times, a long exchange is not cut by one, and a
proxy that cannot run does not close the ports."""

start_all()
machine.wait_for_unit("multi-user.target")
start_site()
write_route("site", '"app.test"', 'provider = "internal"')
machine.succeed("systemctl start fairlead-certs.service", "systemctl restart fairlead-proxy.service")
CURL = "curl -s -o /dev/null --max-time 30 --cacert /var/lib/fairlead/certificates/internal-ca.pem"
machine.wait_until_succeeds(f"{CURL} -f https://app.test/", timeout=30)

with subtest("a hundred restarts under steady requests: none refused"):
    ask_steadily(CURL)
    machine.succeed("for i in $(seq 100); do systemctl restart fairlead-proxy.service; done", timeout=300)
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

with subtest("a crash loop does not close the ports"):
    drop_in("fairlead-proxy.service", "crash", "[Service]", "ExecStart=", "ExecStart=/bin/false")
    machine.execute("systemctl restart fairlead-proxy.service")
    machine.wait_until_succeeds(
        "test $(systemctl show -P NRestarts fairlead-proxy.service) -ge 8", timeout=60
    )
    machine.succeed("systemctl is-active fairlead-http.socket fairlead-https.socket fairlead-admin.socket")
    machine.succeed("systemd-run --unit=waiting " + f"{CURL} -f https://app.test/")

with subtest("a connection made during the crash loop is served once the proxy can run"):
    machine.succeed("rm /run/systemd/system/fairlead-proxy.service.d/crash.conf", "systemctl daemon-reload")
    machine.wait_until_succeeds(f"{CURL} -f https://app.test/", timeout=60)
    machine.wait_until_fails("systemctl is-active waiting.service", timeout=30)
    machine.fail("systemctl is-failed waiting.service")

with subtest("a proxy that hangs is replaced, and the connections that waited are served"):
    drop_in("fairlead-proxy.service", "watchdog", "[Service]", "WatchdogSec=2s")
    machine.succeed("systemctl restart fairlead-proxy.service")
    machine.succeed("kill -STOP $(systemctl show -P MainPID fairlead-proxy.service)")
    machine.succeed(f"{CURL} -f --max-time 30 https://app.test/")
    said = machine.succeed("journalctl --sync; journalctl -o cat -u fairlead-proxy.service")
    assert "Watchdog timeout" in said, said
