"""An ACME server that is away for the whole renewal window: the certificate from before serves to its last
second, what failed and when the next try is can be asked for, and the server's return is enough."""

import tomllib

PEBBLE = "/etc/fairlead-test/pebble/config.json"
STORE = "/var/lib/fairlead/certificates/app.test"
CURL = "curl -s -o /dev/null --max-time 20 --cacert /tmp/issuing-root.pem"
AWAY = "OUTPUT -p tcp -d 127.0.0.1 --dport 14000 -j REJECT --reject-with tcp-reset"


def ledger() -> dict:
    return tomllib.loads(machine.succeed(f"cat {STORE}/state.toml"))


def serial_sent() -> str:
    """The serial number of the certificate that a client is shown now."""
    return machine.succeed(
        "openssl s_client -connect 127.0.0.1:443 -servername app.test </dev/null 2>/dev/null"
        " | openssl x509 -noout -serial"
    ).strip()


start_all()
machine.wait_for_unit("multi-user.target")
machine.wait_for_unit("pebble.service")

with subtest("a certificate is obtained that is due after one minute and ends after one and a half"):
    machine.succeed(
        f"jq '.pebble.certificateValidityPeriod = 90' {PEBBLE} > /tmp/pebble.json && cp -f /tmp/pebble.json {PEBBLE}",
        # Passes come when this script says so.
        "systemctl stop fairlead-certs.timer",
        "systemctl restart pebble.service",
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
    machine.succeed("systemctl start fairlead-certs.service")
    machine.wait_until_succeeds(f"{CURL} -f https://app.test/", timeout=30)
    first = serial_sent()

with subtest("the ACME server goes away, and the renewal that is due fails"):
    machine.succeed(f"iptables -I {AWAY}")
    machine.wait_until_succeeds("fairlead certs | grep app.test | grep -qw due", timeout=90)
    machine.fail("systemctl start fairlead-certs.service")

with subtest("the certificate from before serves"):
    machine.succeed(f"{CURL} -f https://app.test/")
    assert serial_sent() == first

with subtest("the ledger and the commands say what failed and when the next try is"):
    failure = ledger()["failure"]
    assert failure["attempts"] == 1, failure
    assert failure["issuer"] == "https://acme.test:14000/dir", failure
    assert "https://acme.test:14000" in failure["error"], failure
    for command in ("fairlead certs", "fairlead why app.test"):
        told = machine.execute(command)[1]
        for word in ("https://acme.test:14000", "next try"):
            assert word in told, (command, told)

with subtest("no pass tries again before that"):
    machine.succeed("systemctl start fairlead-certs.service")
    assert ledger()["failure"] == failure

with subtest("it is shown even after its last second, because nothing better is there"):
    machine.wait_until_fails(f"openssl x509 -noout -checkend 0 -in {STORE}/fullchain.pem", timeout=60)
    assert serial_sent() == first
    told = machine.execute("fairlead certs")[1]
    assert "the present one expired" in told, told

with subtest("once the ACME server is back, the next try renews the certificate without anybody's help"):
    machine.succeed(
        f"iptables -D {AWAY}",
        "mkdir -p /run/systemd/system/fairlead-certs.timer.d",
        "printf '[Timer]\\nOnUnitInactiveSec=2s\\nRandomizedDelaySec=0\\nAccuracySec=100ms\\n'"
        " > /run/systemd/system/fairlead-certs.timer.d/often.conf",
        "systemctl daemon-reload",
        "systemctl start fairlead-certs.timer",
    )
    machine.wait_until_succeeds(f"{CURL} -f https://app.test/", timeout=120)
    assert serial_sent() != first
    assert "failure" not in ledger(), ledger()
    machine.succeed("fairlead certs | grep -v failing | grep -q app.test")
