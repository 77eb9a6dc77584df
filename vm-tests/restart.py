"""No connection is refused while the proxy restarts a hundred times, and a proxy that cannot run
does not close the ports."""

start_all()
machine.wait_for_unit("multi-user.target")
machine.succeed("mkdir -p /tmp/site && echo hello > /tmp/site/index.html")
machine.succeed("systemd-run --unit=site busybox httpd -f -p 127.0.0.1:8001 -h /tmp/site")
machine.succeed(
    "cat > /etc/fairlead/routes.d/site.toml <<'END'\n"
    '[[route]]\nhosts = ["app.test"]\nupstreams = ["http://127.0.0.1:8001"]\nprovider = "internal"\nEND'
)
machine.succeed("systemctl start fairlead-certs.service", "systemctl restart fairlead-proxy.service")
CURL = "curl -s -o /dev/null --max-time 30 --cacert /var/lib/fairlead/certificates/internal-ca.pem"
machine.wait_until_succeeds(f"{CURL} -f https://app.test/", timeout=30)

with subtest("a hundred restarts under steady requests: none refused"):
    # Each request is a connection of its own; every line is one that did not end with 200.
    machine.succeed(
        "cat > /tmp/load.sh <<'END'\n"
        "while [ ! -e /tmp/stop ]; do\n"
        f"  answer=$({CURL} -w '%{{http_code}}' https://app.test/) || answer=\"curl $?\"\n"
        '  echo "$answer"\n'
        "done > /tmp/answers\n"
        "END",
        "systemd-run --unit=load bash /tmp/load.sh",
    )
    machine.wait_until_succeeds("grep -q 200 /tmp/answers", timeout=10)
    machine.succeed("for i in $(seq 100); do systemctl restart fairlead-proxy.service; done", timeout=300)
    machine.succeed("touch /tmp/stop")
    machine.wait_until_fails("systemctl is-active load.service", timeout=60)
    answers = machine.succeed("sort /tmp/answers | uniq -c").split("\n")
    machine.log(f"answers during 100 restarts: {answers}")
    wrong = machine.succeed("grep -vx 200 /tmp/answers || true")
    assert wrong == "", wrong

with subtest("a crash loop does not close the ports"):
    machine.succeed(
        "mkdir -p /run/systemd/system/fairlead-proxy.service.d",
        "printf '[Service]\\nExecStart=\\nExecStart=/bin/false\\n' > /run/systemd/system/fairlead-proxy.service.d/crash.conf",
        "systemctl daemon-reload",
    )
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
    machine.succeed(
        "printf '[Service]\\nWatchdogSec=2s\\n' > /run/systemd/system/fairlead-proxy.service.d/watchdog.conf",
        "systemctl daemon-reload",
        "systemctl restart fairlead-proxy.service",
    )
    machine.succeed("kill -STOP $(systemctl show -P MainPID fairlead-proxy.service)")
    machine.succeed(f"{CURL} -f --max-time 30 https://app.test/")
    said = machine.succeed("journalctl --sync; journalctl -o cat -u fairlead-proxy.service")
    assert "Watchdog timeout" in said, said
