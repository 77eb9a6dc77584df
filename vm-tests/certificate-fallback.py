"""An ACME server that is away for the whole renewal window: the certificate from before serves to its last
second, what failed and when the next try is can be asked for, and the server's return is enough."""

import tomllib

STORE = "/var/lib/fairlead/certificates/app.test"
CURL = f"curl -s -o /dev/null --max-time 20 --cacert {ISSUING_ROOT}"
AWAY = "OUTPUT -p tcp --dport 14000 -j REJECT --reject-with tcp-reset"


def ledger() -> dict:
    return tomllib.loads(machine.succeed(f"cat {STORE}/state.toml"))


start_all()
machine.wait_for_unit("multi-user.target")

with subtest("a certificate is obtained that is due after one minute and ends after one and a half"):
    # Passes come when this script says so.
    machine.succeed("systemctl stop fairlead-certs.timer")
    let_certificates_live(90)
    start_site()
    # Not before: the watcher's reload starts a pass as soon as there is a route.
    write_route("site", '"app.test"')
    machine.succeed("systemctl restart fairlead-proxy.service")
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
    drop_in("fairlead-certs.timer", "often", "[Timer]", "OnUnitInactiveSec=2s", "RandomizedDelaySec=0", "AccuracySec=100ms")
    machine.succeed(f"iptables -D {AWAY}", "systemctl start fairlead-certs.timer")
    machine.wait_until_succeeds(f"{CURL} -f https://app.test/", timeout=120)
    assert serial_sent() != first
    assert "failure" not in ledger(), ledger()
    machine.succeed("fairlead certs | grep -v failing | grep -q app.test")
