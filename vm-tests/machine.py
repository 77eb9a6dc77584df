# The lab itself: a machine boots whole, and the neighbours that the other tests rely on are there.

start_all()
machine.wait_for_unit("multi-user.target")

with subtest("no unit has failed"):
    failed = machine.succeed("systemctl --failed --no-legend --plain")
    assert failed == "", failed

with subtest("a container of the test image serves its host name"):
    machine.succeed("docker load --input /etc/fairlead-test/image.tar")
    machine.succeed("docker run --detach --name one --hostname one --publish 127.0.0.1:8080:80 fairlead-test/site")
    machine.wait_until_succeeds("curl --fail --silent http://127.0.0.1:8080/ | grep -x one", timeout=20)
    request = machine.succeed("curl --fail --silent --header 'X-Probe: yes' http://127.0.0.1:8080/cgi-bin/request")
    assert "HTTP_X_PROBE=yes" in request, request
    # It would be killed only after ten minutes.
    machine.succeed("docker stop --time 600 one", timeout=120)

with subtest("Pebble answers under its name, over HTTPS that the machine trusts"):
    acme.wait_for_unit("pebble.service")
    acme.wait_for_open_port(14000)
    directory = machine.succeed("curl --fail --silent --show-error https://acme.test:14000/dir")
    assert "newOrder" in directory, directory
    root = machine.succeed("curl --fail --silent --show-error https://acme.test:15000/roots/0")
    assert "BEGIN CERTIFICATE" in root, root

with subtest("a service's sandbox holds: what works without a line of it fails with it"):
    refused = {
        "DynamicUser=yes": "touch /root/witness",
        "ProtectSystem=strict": "touch /usr/witness",
        "InaccessiblePaths=/run/docker.sock": "docker version",
        "RestrictAddressFamilies=AF_INET": "docker version",
        "PrivateNetwork=yes": "curl --silent https://acme.test:14000/dir",
        "CapabilityBoundingSet=": "chown 1:1 /root/witness",
        "SystemCallFilter=~uname": "uname",
    }
    for line, command in refused.items():
        machine.succeed(f"systemd-run --quiet --collect --wait --pipe {command}")
        machine.fail(f"systemd-run --quiet --collect --wait --pipe --property={line} {command}")

with subtest("every name is this machine"):
    assert "127.0.0.1" in machine.succeed("getent ahostsv4 any.name.test")

with subtest("the manual and the shell's completions came with the programs"):
    share = machine.succeed("dirname $(dirname $(readlink -f $(command -v fairlead)))").strip() + "/share"
    for page in ["man1/fairlead.1", "man1/fairlead-why.1", "man5/fairlead.toml.5", "man8/fairlead-proxy.8"]:
        machine.succeed(f"zcat --force {share}/man/{page}* | grep -x '.SH NAME'")
    completed = machine.succeed(
        f"bash -c 'source {share}/bash-completion/completions/fairlead; COMP_WORDS=(fairlead wh); COMP_CWORD=1; "
        "_fairlead fairlead wh fairlead; echo ${COMPREPLY[@]}'"
    )
    assert completed == "why\n", completed
