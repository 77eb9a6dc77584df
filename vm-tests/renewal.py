"""A certificate that lives for a minute is renewed again and again by the timer, and no request under
way notices."""

PEBBLE = "/etc/fairlead-test/pebble/config.json"
STORE = "/var/lib/fairlead/certificates/app.test"
CURL = "curl -s -o /dev/null --max-time 20 --cacert /tmp/issuing-root.pem"


def serial_sent() -> str:
    """The serial number of the certificate that a client is shown now."""
    return machine.succeed(
        "openssl s_client -connect 127.0.0.1:443 -servername app.test </dev/null 2>/dev/null"
        " | openssl x509 -noout -serial"
    ).strip()


start_all()
machine.wait_for_unit("multi-user.target")
machine.wait_for_unit("pebble.service")

with subtest("a certificate is obtained that lives for a minute"):
    # The timer's ten minutes suit certificates that live for days.
    machine.succeed(
        f"jq '.pebble.certificateValidityPeriod = 60' {PEBBLE} > /tmp/pebble.json && cp -f /tmp/pebble.json {PEBBLE}",
        "systemctl stop fairlead-certs.timer",
        "systemctl restart pebble.service",
        "mkdir -p /run/systemd/system/fairlead-certs.timer.d",
        "printf '[Timer]\\nOnUnitInactiveSec=2s\\nRandomizedDelaySec=0\\nAccuracySec=100ms\\n'"
        " > /run/systemd/system/fairlead-certs.timer.d/often.conf",
        "systemctl daemon-reload",
        "mkdir -p /tmp/site && echo hello > /tmp/site/index.html",
        "systemd-run --unit=site busybox httpd -f -p 127.0.0.1:8001 -h /tmp/site",
    )
    machine.wait_until_succeeds("curl -sf https://acme.test:15000/roots/0 > /tmp/issuing-root.pem", timeout=30)
    machine.wait_for_open_port(14000, timeout=30)
    # Not before: the watcher's reload starts a pass as soon as there is a route.
    machine.succeed(
        "cat > /etc/fairlead/routes.d/site.toml <<'END'\n"
        '[[route]]\nhosts = ["app.test"]\nupstreams = ["http://127.0.0.1:8001"]\nEND',
        "systemctl restart fairlead-proxy.service",
    )
    machine.succeed("systemctl start fairlead-certs.service", "systemctl restart fairlead-certs.timer")
    machine.wait_until_succeeds(f"{CURL} -f https://app.test/", timeout=30)

with subtest("it is renewed three times under steady requests, and none fails"):
    # Each request is a connection of its own, which judges the certificate and its validity anew.
    machine.succeed(
        "cat > /tmp/load.sh <<'END'\n"
        "while [ ! -e /tmp/stop ]; do\n"
        f"  answer=$({CURL} -w '%{{http_code}}' https://app.test/) || answer=\"curl $?\"\n"
        '  echo "$answer"\n'
        "done > /tmp/answers\n"
        "END",
        "systemd-run --unit=load bash /tmp/load.sh",
    )
    shown = [serial_sent()]
    for _ in range(3):
        machine.wait_until_succeeds(
            "openssl s_client -connect 127.0.0.1:443 -servername app.test </dev/null 2>/dev/null"
            f" | openssl x509 -noout -serial | grep -vx {shown[-1]}",
            timeout=90,
        )
        shown.append(serial_sent())
    machine.succeed("touch /tmp/stop")
    machine.wait_until_fails("systemctl is-active load.service", timeout=60)
    answers = machine.succeed("sort /tmp/answers | uniq -c").split("\n")
    machine.log(f"answers during three renewals: {answers}")
    assert len(set(shown)) == 4, shown
    wrong = machine.succeed("grep -vx 200 /tmp/answers || true")
    assert wrong == "", wrong

with subtest("each certificate took one order, and the units did their part without a failure"):
    orders = int(machine.succeed("journalctl -u pebble.service | grep -c 'There are now .* orders in the db'"))
    issued = int(machine.succeed("journalctl -u fairlead-certs.service | grep -c 'obtained from'"))
    machine.log(f"{issued} certificates from {orders} orders")
    assert orders == issued >= 4, (orders, issued)
    failed = machine.succeed("systemctl list-units --failed --plain --no-legend 'fairlead-*'")
    assert failed == "", failed

with subtest("the proxy stayed the same process, and what it shows is what is stored"):
    assert machine.get_unit_property("fairlead-proxy.service", "NRestarts") == "0"
    machine.succeed("systemctl stop fairlead-certs.timer")
    machine.wait_until_fails("systemctl is-active fairlead-certs.service", timeout=60)
    stored = machine.succeed(f"openssl x509 -noout -serial -in {STORE}/fullchain.pem").strip()
    assert serial_sent() == stored
