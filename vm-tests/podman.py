"""Podman's socket in place of Docker's: its containers are sites, wait while they are unhealthy or paused, and go."""

SOCKET = "/run/podman/podman.sock"
CURL = "curl -s --max-time 10 --cacert /var/lib/fairlead/certificates/internal-ca.pem"


def podman(command: str) -> str:
    return machine.succeed(f"docker --host unix://{SOCKET} {command}")


def run(name: str, *options: str) -> None:
    labels = f"--label fairlead.hosts={name}.test --label fairlead.provider=internal --label fairlead.port=80"
    podman(f"run -d --name {name} --hostname {name} {labels} {' '.join(options)} fairlead-test/site")


def wait_for_status(host: str, status: int) -> None:
    asked = f"{CURL} -o /dev/null -w '%{{http_code}}' https://{host}/"
    machine.wait_until_succeeds(f"test $({asked}) = {status}", timeout=60)


start_all()
machine.wait_for_unit("multi-user.target")
drop_in("podman.socket", "group", "[Socket]", "SocketGroup=docker", "ExecStartPost=chmod 0711 /run/podman")
machine.succeed(
    f"printf '\\n[docker]\\nsocket = \"{SOCKET}\"\\n' >> /etc/fairlead/fairlead.toml",
    "systemctl restart podman.socket fairlead-docker-events.service",
)
podman("load -i /etc/fairlead-test/image.tar")

with subtest("a container is a site"):
    run("web")
    machine.wait_until_succeeds(f"{CURL} -f https://web.test/ | grep -x web", timeout=60)

with subtest("it waits while it is paused, and its health check decides"):
    podman("pause web")
    wait_for_status("web.test", 503)
    podman("unpause web")
    wait_for_status("web.test", 200)
    run("slow", "--health-cmd 'test -e /ready' --health-interval 1s --health-retries 1")
    wait_for_status("slow.test", 503)
    machine.succeed("(fairlead why slow.test || true) | grep 'its health check'")
    podman("exec slow busybox touch /ready")
    wait_for_status("slow.test", 200)

with subtest("it goes with its container"):
    podman("stop web")
    machine.wait_until_fails(f"{CURL} https://web.test/", timeout=60)
    wait_for_status("slow.test", 200)
