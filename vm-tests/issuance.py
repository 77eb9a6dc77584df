"""A labelled container becomes an HTTPS site with a certificate that the ACME server issued; it
follows the container to a new address and goes when the container goes. Nobody runs a reload."""

import time

CURL = f"curl -s --cacert {ISSUING_ROOT}"


def started(name: str, hosts: str) -> None:
    machine.succeed(f"docker run -d --name {name} --hostname {name} --label fairlead.hosts={hosts} fairlead-test/site")


def address(name: str) -> str:
    return machine.succeed(
        "docker inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' " + name
    ).strip()


def wait_for_page(host: str, container: str) -> float:
    since = time.monotonic()
    machine.wait_until_succeeds(f"{CURL} -f https://{host}/ | grep -qx {container}", timeout=60)
    return time.monotonic() - since


def orders() -> int:
    return int(acme.succeed("journalctl -u pebble.service | grep -c 'There are now .* orders in the db' || true"))


start_all()
machine.wait_for_unit("multi-user.target")
machine.wait_for_unit("docker.service")
wait_for_pebble()
machine.wait_for_unit("fairlead-docker-events.service")
machine.succeed("docker load -i /etc/fairlead-test/image.tar")

with subtest("a name nobody declared gets the TLS alert"):
    refused = machine.fail(f"curl -sv --cacert {ISSUING_ROOT} https://app.test/ 2>&1")
    assert "unrecognized name" in refused, refused

with subtest("docker run gives an HTTPS site over HTTP/2 with an issued certificate"):
    started("web-1", "app.test")
    first = wait_for_page("app.test", "web-1")
    machine.log(f"docker run to first HTTPS 200, with an order to Pebble: {first:.2f} s")
    version = machine.succeed(f"{CURL} -o /dev/null -w '%{{http_version}}' https://app.test/")
    assert version == "2", version

with subtest("why tells each step"):
    told = machine.succeed("fairlead why app.test")
    for word in ["web-1", address("web-1"), "certificate", "https://app.test/"]:
        assert word in told, told

with subtest("the units have done their part without a failure"):
    failed = machine.succeed("systemctl list-units --failed --plain --no-legend 'fairlead-*'")
    assert failed == "", failed

with subtest("a container replaced at another address is followed, and no order is spent"):
    spent = orders()
    before = address("web-1")
    machine.succeed("docker rm -f web-1", "docker run -d --name takes-the-address fairlead-test/site")
    started("web-2", "app.test")
    again = wait_for_page("app.test", "web-2")
    machine.log(f"docker run to first HTTPS 200, with a certificate there: {again:.2f} s")
    assert address("web-2") != before
    assert orders() == spent, "an order was spent on a certificate that was there"

with subtest("a stopped container takes the name with it"):
    machine.succeed("docker stop -t 0 web-2")
    machine.wait_until_fails(f"{CURL} -o /dev/null https://app.test/", timeout=30)
    refused = machine.fail(f"curl -sv --cacert {ISSUING_ROOT} https://app.test/ 2>&1")
    assert "unrecognized name" in refused, refused

with subtest("and brings it back when it starts again"):
    machine.succeed("docker start web-2")
    wait_for_page("app.test", "web-2")

with subtest("a container with a wrong label is left out with the reason and harms nobody"):
    machine.succeed("docker run -d --name wrong --label fairlead.hosts=other.test --label fairlead.port=70000 fairlead-test/site")
    machine.wait_until_succeeds("(fairlead why wrong || true) | grep -q 70000", timeout=30)
    wait_for_page("app.test", "web-2")

with subtest("another server at port 80 of the machine's own public address costs no order and is told"):
    spent = orders()
    other = "OUTPUT -d 1.2.3.4 -p tcp --dport 80 -j REDIRECT --to-ports 8001"
    start_site()
    machine.succeed(
        "ip address add 1.2.3.4/32 dev lo",
        "curl -sf http://127.0.0.1:8055/add-a --data '{\"host\": \"own.test\", \"addresses\": [\"1.2.3.4\"]}'",
        f"iptables -t nat -A {other}",
    )
    write_route("own", '"own.test"', 'challenge = "http-01"')
    machine.succeed("fairlead reload")
    machine.wait_until_succeeds("(fairlead why own.test || true) | grep -q 'nothing was ordered'", timeout=30)
    for command in ("fairlead why own.test", "fairlead certs"):
        told = machine.execute(command)[1]
        assert "own.test leads to 1.2.3.4, where at port 80 another server answers, with 404 Not Found" in told, told
    assert orders() == spent, "an order was spent that was certain to fail"

with subtest("and the certificate comes once the port is the proxy's"):
    machine.succeed(f"iptables -t nat -D {other}", "systemctl start fairlead-certs.service")
    machine.wait_until_succeeds(f"{CURL} -f https://own.test/ | grep -qx hello", timeout=30)
    assert orders() == spent + 1
