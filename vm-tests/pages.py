"""Every command that a page shows is run, on a machine where it has something to say. The pages are those that
came with the programs; tests/tests/docs.rs says where the commands of the other pages are run."""

import re

# Of the README.
COMMANDS = """
docker run -d --name whoami --label fairlead.hosts=whoami.localhost traefik/whoami
journalctl -u 'fairlead-*'
journalctl FAIRLEAD_ROUTE=app.example.com
"""
# What asks for something that is not there.
FAILING = {"fairlead why typo.example.com"}
# What does not end by itself.
ENDLESS = ("fairlead dev", "journalctl -t fairlead-access -f")


def commands(page: str) -> list[str]:
    blocks = "".join(re.findall(r"^ *```sh\n(.*?)^ *```", page, re.MULTILINE | re.DOTALL))
    lines = [line.partition(" #")[0].strip() for line in blocks.replace("\\\n", " ").splitlines()]
    # The machine was set up by these, and debian/install.py runs them.
    return [line for line in lines if line and not line.startswith(("#", "./install"))]


def run(command: str) -> None:
    if name := re.search("--name (\\S+)", command):
        machine.execute(f"docker rm -f {name[1]}")
    taken = command.replace("systemctl enable", "systemctl enable --runtime")
    if command in FAILING:
        said = machine.fail(taken)
    elif command.startswith(ENDLESS):
        said = machine.succeed(f"timeout --signal=INT 10 {taken} || test $? = 124")
    else:
        # What was started by the command before may take its time.
        said = machine.wait_until_succeeds(f"CURL_CA_BUNDLE={ISSUING_ROOT} {taken}", timeout=60)
    is_silent = re.match("systemctl (start|stop|restart|enable)", command)
    assert is_silent or said.strip() not in ["", "-- No entries --"], command


start_all()
machine.wait_for_unit("multi-user.target")
machine.wait_for_unit("docker.service")
wait_for_pebble()
machine.wait_for_unit("fairlead-docker-events.service")
machine.succeed(
    "docker load -i /etc/fairlead-test/image.tar",
    *[f"docker tag fairlead-test/site {name}" for name in ["traefik/whoami", "my-api", "my-app"]],
    "printf '\\n[proxy]\\naccess-log = \"json\"\\n' >> /etc/fairlead/fairlead.toml",
    "printf '[certificates]\\nprovider = \"internal\"\\n' > /etc/fairlead-internal/fairlead.toml",
    "printf '[[route]]\\nhosts = [\"wiki.internal\"]\\nupstreams = [\"http://127.0.0.1:8001\"]\\n'"
    " >> /etc/fairlead-internal/fairlead.toml",
)
for socket, port in [("http", 8081), ("https", 8444)]:
    drop_in(f"fairlead-internal-{socket}.socket", "port", "[Socket]", "ListenStream=", f"ListenStream={port}")
drop_in("fairlead-internal-certs.timer", "soon", "[Timer]", "OnActiveSec=1s", "RandomizedDelaySec=0", "AccuracySec=100ms")
write_route("broken", '"app.example.com"', 'path = "/broken"')
write_route("www", '"www.example.com"')
machine.succeed("systemctl restart fairlead-proxy.service")
machine.succeed("docker run -d --name whoami --label fairlead.hosts=app.example.com traefik/whoami")
curl = f"curl -s --cacert {ISSUING_ROOT} https://app.example.com"
machine.wait_until_succeeds(f"{curl}/ -f", timeout=60)
machine.succeed(f"{curl}/broken/")
machine.wait_until_succeeds("fairlead certs | grep www.example.com | grep -qw ok", timeout=60)

pages = machine.succeed("ls $(dirname $(dirname $(readlink -f $(command -v fairlead))))/share/doc/fairlead/*.md").split()
assert len(pages) > 10, pages
with subtest("the commands of the README"):
    for command in COMMANDS.strip().splitlines():
        run(command)
for page in pages:
    with subtest(f"the commands of {page.rpartition('/')[2]}"):
        for command in commands(machine.succeed(f"cat {page}")):
            run(command)
    if "account deactivate" in machine.succeed(f"cat {page}"):
        # The other pages need an account.
        machine.succeed("rm /var/lib/fairlead/account/acme*.toml")
