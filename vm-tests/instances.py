"""Two installations on one machine: each has its own addresses, routes, containers and authority, and neither reads
the other's keys or follows the other's reload."""

UNITS = "fairlead-internal"
AT = "--connect-to wiki.internal:443:127.0.0.1:8444"


def curl(installation: str) -> str:
    return f"curl -sf --max-time 10 --cacert /var/lib/{installation}/certificates/internal-ca.pem"


def pid(installation: str) -> str:
    return machine.get_unit_property(f"{installation}-proxy.service", "MainPID")


start_all()
machine.wait_for_unit("multi-user.target")
start_site()
write_route("site", '"app.test"', 'provider = "internal"')
machine.succeed("fairlead reload", "systemctl start fairlead-proxy.service fairlead-certs.service")
machine.wait_until_succeeds(f"{curl('fairlead')} https://app.test/ | grep -x hello", timeout=60)

with subtest("a second installation starts beside the first, at its own addresses"):
    machine.succeed("systemctl stop fairlead-internal-http.socket fairlead-internal-https.socket")
    for socket, port in [("http", 8081), ("https", 8444)]:
        drop_in(f"{UNITS}-{socket}.socket", "port", "[Socket]", "ListenStream=", f"ListenStream={port}")
    machine.succeed(
        "cat > /etc/fairlead-internal/fairlead.toml <<'END'\n"
        '[certificates]\nprovider = "internal"\n[docker]\nproxytag = "internal"\n'
        '[[route]]\nhosts = ["wiki.internal"]\nupstreams = ["http://127.0.0.1:8001"]\nEND',
        "fairlead-internal check",
        f"systemctl restart {UNITS}-http.socket {UNITS}-https.socket {UNITS}-admin.socket {UNITS}-reload.socket {UNITS}-certs.path",
        f"systemctl start {UNITS}-proxy.service {UNITS}-certs.service",
    )
    machine.wait_until_succeeds(f"{curl(UNITS)} {AT} https://wiki.internal/ | grep -x hello", timeout=60)

with subtest("neither knows the sites of the other"):
    machine.fail(f"{curl(UNITS)} https://wiki.internal/")
    machine.fail(f"{curl('fairlead')} --connect-to app.test:443:127.0.0.1:8444 https://app.test/")
    assert "app.test" not in machine.succeed("fairlead-internal routes")
    assert "wiki.internal" not in machine.succeed("fairlead routes")

with subtest("a reload is for one of them"):
    first, second = pid("fairlead"), pid(UNITS)
    loaded = "curl -sf --unix-socket /run/fairlead/admin.sock http://admin/status | jq .reloads"
    before = machine.succeed(loaded)
    machine.succeed("sed -i 's/wiki.internal/wiki.internal\", \"www.wiki.internal/' /etc/fairlead-internal/fairlead.toml")
    machine.succeed("fairlead-internal reload", "fairlead-internal status")
    assert "www.wiki.internal" in machine.succeed("fairlead-internal routes")
    assert machine.succeed(loaded) == before
    assert (pid("fairlead"), pid(UNITS)) == (first, second)

with subtest("neither reads the keys of the other"):
    for user, other in [("fairlead-proxy", UNITS), (f"{UNITS}-proxy", "fairlead")]:
        group = user.removesuffix("-proxy")
        read = f"setpriv --reuid={user} --regid={group} --clear-groups sh -c 'cat /var/lib/%s/certificates/*/key.pem'"
        machine.succeed(f"{read % group} | grep -q 'PRIVATE KEY'")
        machine.fail(read % other)

with subtest("a container is for the installation that has its tag"):
    machine.wait_for_unit("docker.service")
    machine.succeed("docker load -i /etc/fairlead-test/image.tar")
    run = "docker run -d --label fairlead.provider=internal"
    machine.succeed(
        f"{run} --name mine --label fairlead.hosts=mine.test --label fairlead.proxytag=internal fairlead-test/site",
        f"{run} --name theirs --label fairlead.hosts=theirs.test fairlead-test/site",
        f"systemctl start fairlead-watcher.service {UNITS}-watcher.service",
    )
    # A start joins a pass under way, which may have asked Docker before; another one follows then.
    machine.wait_until_succeeds("grep 'hosts.*theirs.test' /var/lib/fairlead/routes/docker.toml", timeout=30)
    machine.succeed(f"grep 'hosts.*mine.test' /var/lib/{UNITS}/routes/docker.toml")
    for told, container in [("fairlead", "mine"), (UNITS, "theirs")]:
        machine.succeed(f"({told} why {container} || true) | grep 'another instance'")

with subtest("its services are exposed no more than those of the first"):
    for service in ["proxy", "watcher", "certs", "docker-events", "deliver"]:
        said = [
            machine.succeed(f"systemd-analyze security --no-pager {name}-{service}.service").splitlines()[-1].split(": ")[1]
            for name in ["fairlead", UNITS]
        ]
        assert said[0] == said[1], (service, said)
