"""The routes follow the containers of a whole machine: replicas, health checks, networks, a daemon that
restarts, and events that nobody hears."""

import json

CURL = "curl -s --max-time 10 --cacert /var/lib/fairlead/certificates/internal-ca.pem"


def run(name: str, *options: str) -> None:
    machine.succeed(f"docker run -d --name {name} --hostname {name} {' '.join(options)} fairlead-test/site")


def labels(host: str) -> str:
    return f"--label fairlead.hosts={host} --label fairlead.provider=internal"


def replica_of(service: str) -> str:
    return f"--label com.docker.compose.project=p --label com.docker.compose.service={service}"


def last_pass() -> dict:
    return json.loads(machine.execute("fairlead status --json")[1])["last-pass"]


def wait_for(host: str, answer: str) -> None:
    machine.wait_until_succeeds(f"{CURL} -f https://{host}/ | grep -qx '{answer}'", timeout=60)


def wait_for_status(host: str, status: int) -> None:
    asked = f"{CURL} -o /dev/null -w '%{{http_code}}' https://{host}/"
    machine.wait_until_succeeds(f"test $({asked}) = {status}", timeout=60)


start_all()
machine.wait_for_unit("multi-user.target")
machine.wait_for_unit("docker.service")
machine.wait_for_unit("fairlead-docker-events.service")
machine.succeed("docker load -i /etc/fairlead-test/image.tar")

with subtest("replicas of one service share a host, and one that goes is missed by nobody"):
    for name in ["web-1", "web-2"]:
        run(name, labels("web.test"), replica_of("web"))
    for name in ["web-1", "web-2"]:
        wait_for("web.test", name)
    machine.succeed("docker stop web-1")
    machine.wait_until_succeeds("fairlead routes | grep web.test | grep -v web-1", timeout=30)
    for _ in range(5):
        machine.succeed(f"{CURL} -f https://web.test/ | grep -x web-2")

with subtest("a stranger does not get a host that is taken, and hears why"):
    run("stranger", labels("web.test"))
    machine.wait_until_succeeds("(fairlead why stranger || true) | grep -q web.test", timeout=30)
    machine.succeed(f"{CURL} -f https://web.test/ | grep -x web-2")

with subtest("a container is asked for nothing before its health check passes"):
    run(
        "slow",
        labels("slow.test"),
        "--health-cmd 'test -e /ready'",
        "--health-interval 1s --health-retries 1",
    )
    wait_for_status("slow.test", 503)
    machine.succeed("docker exec slow busybox touch /ready")
    wait_for("slow.test", "slow")

with subtest("and for nothing more once it fails"):
    machine.succeed("docker exec slow busybox rm /ready")
    wait_for_status("slow.test", 503)

with subtest("a container in two networks is reached on the one that it names"):
    machine.succeed("docker network create front", "docker network create back")
    run("both", labels("both.test"), "--network front", "--label fairlead.network=back")
    machine.succeed("docker network connect back both")
    wait_for("both.test", "both")
    inspect = "docker inspect -f '{{(index .NetworkSettings.Networks \"back\").IPAddress}}' both"
    address = machine.succeed(inspect).strip()
    machine.succeed(f"fairlead routes | grep both.test | grep -F {address}")

with subtest("a daemon that restarts is followed again, and the containers that it starts are back"):
    run("always", labels("always.test"), "--restart always")
    wait_for("always.test", "always")
    machine.succeed("systemctl restart docker.service")
    wait_for("always.test", "always")
    run("after", labels("after.test"))
    wait_for("after.test", "after")

with subtest("what no event told is found by the timer"):
    machine.succeed("systemctl stop fairlead-docker-events.service fairlead-watcher.path")
    run("unheard", labels("unheard.test"))
    machine.fail("grep unheard.test /var/lib/fairlead/routes/docker.toml")
    machine.succeed("(fairlead why unheard.test || true) | grep 'fairlead-watcher.service last looked'")
    drop_in("fairlead-watcher.timer", "often", "[Timer]", "OnActiveSec=1s", "RandomizedDelaySec=0", "AccuracySec=100ms")
    machine.succeed("systemctl restart fairlead-watcher.timer")
    wait_for("unheard.test", "unheard")

with subtest("when the watcher last looked, and that it failed, is what systemd says of its unit"):
    machine.succeed("systemctl stop fairlead-watcher.timer", "systemctl start fairlead-watcher.service")
    good = last_pass()
    now = int(machine.succeed("date +%s"))
    began = int(machine.succeed(f"date --date={good['at']} +%s"))
    assert good["unit"] == "fairlead-watcher.service" and not good["failed"] and now - 60 <= began <= now, good
    machine.succeed("echo '[docker' >> /etc/fairlead/fairlead.toml")
    machine.fail("systemctl start fairlead-watcher.service")
    assert last_pass()["failed"], last_pass()
    machine.succeed("(fairlead why nobody.test || true) | grep 'fairlead-watcher.service failed'")
    machine.succeed("sed -i '$d' /etc/fairlead/fairlead.toml", "systemctl start fairlead-watcher.service")
    assert not last_pass()["failed"], last_pass()

with subtest("no unit has failed for good"):
    failed = machine.succeed("systemctl list-units --failed --plain --no-legend 'fairlead-*'")
    assert failed == "", failed
