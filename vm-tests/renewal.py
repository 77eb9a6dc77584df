"""A certificate that lives for a minute is renewed again and again by the timer, and no request under
way notices."""

STORE = "/var/lib/fairlead/certificates/app.test"
CURL = f"curl -s -o /dev/null --max-time 20 --cacert {ISSUING_ROOT}"


start_all()
machine.wait_for_unit("multi-user.target")

with subtest("a certificate is obtained that lives for a minute"):
    # The timer's ten minutes suit certificates that live for days.
    machine.succeed("systemctl stop fairlead-certs.timer")
    drop_in("fairlead-certs.timer", "often", "[Timer]", "OnUnitInactiveSec=2s", "RandomizedDelaySec=0", "AccuracySec=100ms")
    let_certificates_live(60)
    start_site()
    # Not before: the watcher's reload starts a pass as soon as there is a route.
    write_route("site", '"app.test"')
    machine.succeed("systemctl restart fairlead-proxy.service")
    machine.succeed("systemctl start fairlead-certs.service", "systemctl restart fairlead-certs.timer")
    machine.wait_until_succeeds(f"{CURL} -f https://app.test/", timeout=30)

with subtest("it is renewed three times under steady requests, and none fails"):
    ask_steadily(CURL)
    shown = [serial_sent()]
    for _ in range(3):
        machine.wait_until_succeeds(
            "openssl s_client -connect 127.0.0.1:443 -servername app.test </dev/null 2>/dev/null"
            f" | openssl x509 -noout -serial | grep -vx {shown[-1]}",
            timeout=90,
        )
        shown.append(serial_sent())
    end_asking("three renewals")
    assert len(set(shown)) == 4, shown

with subtest("each certificate took one order, and the units did their part without a failure"):
    orders = int(acme.succeed("journalctl --sync; journalctl -u pebble.service | grep -c 'There are now .* orders in the db'"))
    issued = int(machine.succeed("journalctl --sync; journalctl -u fairlead-certs.service | grep -c 'obtained from'"))
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
