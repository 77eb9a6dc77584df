"""A template's file follows the containers: rendered without any right, delivered with owner and mode after its
check, and its unit told."""

start_all()
machine.wait_for_unit("multi-user.target")
machine.wait_for_unit("docker.service")
machine.succeed("docker load -i /etc/fairlead-test/image.tar")

machine.succeed(
    "mkdir -p /srv/reader",
    "printf '[Service]\\nExecStart=sleep infinity\\nExecReload=cp /srv/reader/list /srv/reader/seen\\n'"
    " > /run/systemd/system/reader.service",
    "systemctl daemon-reload",
    "systemctl start reader.service",
    "printf '[[template]]\\nname = \"list\"\\nsource = \"domains.txt\"\\ndestination = \"/srv/reader/list\"\\n"
    "owner = \"nobody\"\\nmode = \"0640\"\\nreload-units = [\"reader.service\"]\\n"
    "check = [\"grep\", \"-qv\", \"bad\", \"{}\"]\\n' >> /etc/fairlead/fairlead.toml",
    "fairlead check",
)

with subtest("a container is in the file, and the unit has read it"):
    machine.succeed("docker run -d --name web --label fairlead.hosts=app.test fairlead-test/site")
    machine.wait_until_succeeds("grep -x app.test /srv/reader/seen", timeout=30)
    assert machine.succeed("stat -c '%U %a' /srv/reader/list").strip() == "nobody 640"

with subtest("what the check refuses stays out, and the unit says why"):
    machine.succeed("docker rm -f web", "docker run -d --name web --label fairlead.hosts=bad.test fairlead-test/site")
    machine.wait_until_succeeds("systemctl is-failed fairlead-deliver.service", timeout=30)
    machine.succeed("journalctl --sync; journalctl -u fairlead-deliver.service | grep 'template list: its check failed'")
    machine.succeed("! grep bad /srv/reader/list /srv/reader/seen")

with subtest("it follows again when the check is content"):
    machine.succeed("docker rm -f web", "docker run -d --name web --label fairlead.hosts=b.test fairlead-test/site")
    machine.wait_until_succeeds("grep -x b.test /srv/reader/seen", timeout=30)
    machine.succeed("! systemctl is-failed fairlead-deliver.service")
