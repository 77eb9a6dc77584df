"""`./install` on a system that runs: everything goes away, comes back, starts by the commands that it prints, and goes
away again. What is the operator's stays."""

SOURCE = "/usr/src/fairlead"
EVERYTHING = "find / /run -xdev \\( -name '*fairlead*' -o -path '*/doc/fairlead/*' \\)"


def install(*arguments: str) -> str:
    return machine.succeed(f"{SOURCE}/install {' '.join(arguments)} 2>&1")


def started_as_told(said: str) -> None:
    """Runs the commands that ./install ends with."""
    told = said[said.index("To start:") :].replace("\\\n", " ").splitlines()
    commands = [line.strip() for line in told if line.strip().startswith("systemctl")]
    assert len(commands) == 3, said
    machine.succeed(*commands)


def left() -> list[str]:
    """What has our name on this system, beside the sources, the tests' own files and what users keep."""
    kept = ("/usr/src", "/etc/fairlead", "/var/lib/fairlead")
    # find fails if a directory goes away under it.
    found = machine.execute(EVERYTHING)[1].splitlines()
    return [path for path in found if not path.startswith(kept)]


start_all()
machine.wait_for_unit("multi-user.target")
write_route("own", '"app.test"', 'provider = "internal"')
drop_in("fairlead-proxy.service", "own", "[Service]", "Environment=OWN=1")
kept = machine.succeed("sha256sum /etc/fairlead/fairlead.toml /etc/fairlead/routes.d/*")

with subtest("it goes away from a system that runs, with all that it started"):
    machine.succeed("systemctl start fairlead-proxy.service", "curl -s -o /dev/null http://127.0.0.1/")
    refused = machine.fail(f"{SOURCE}/install --remove 2>&1")
    assert "fairlead-internal needs these programs" in refused, refused
    install("--remove --instance internal")
    of_instance = [path for path in left() if "internal" in path]
    assert of_instance == [], of_instance
    machine.succeed("systemctl is-active fairlead-proxy.service")
    install("--remove")
    for kind in ["list-units --all", "list-unit-files"]:
        known = machine.execute(f"systemctl {kind} --plain --no-legend 'fairlead*'")[1]
        assert known == "", known
    machine.fail("pgrep -f '/usr/bin/[f]airlead'")
    machine.fail("ss -Hltn 'sport = :443' | grep LISTEN")
    own = ["/run/systemd/system/fairlead-proxy.service.d"]
    assert left() == own, left()

with subtest("what the operator wrote stays"):
    assert machine.succeed("sha256sum /etc/fairlead/fairlead.toml /etc/fairlead/routes.d/*") == kept

with subtest("it comes back, and the commands that it prints start it"):
    started_as_told(install("--bin-dir /usr/src/fairlead-programs"))
    start_site()
    machine.wait_until_succeeds(
        "curl -sf --cacert /var/lib/fairlead/certificates/internal-ca.pem https://app.test/ | grep -x hello", timeout=60
    )
    failed = machine.succeed("systemctl list-units --failed --plain --no-legend 'fairlead-*'")
    assert failed == "", failed

with subtest("once more over what runs: no request is refused, and another program serves afterwards"):
    before = machine.get_unit_property("fairlead-proxy.service", "MainPID")
    ask_steadily("curl -s -o /dev/null --max-time 30 --cacert /var/lib/fairlead/certificates/internal-ca.pem")
    started_as_told(install("--bin-dir /usr/src/fairlead-programs"))
    end_asking("an update")
    assert machine.get_unit_property("fairlead-proxy.service", "MainPID") != before

with subtest("what is for an older systemd does no harm on a newer one, and goes when it is installed again"):
    drop_ins = "find /usr/lib/systemd/system -name '60-*' -path '*/fairlead-*' | wc -l"
    install("--bin-dir /usr/src/fairlead-programs --systemd 252")
    assert machine.succeed(drop_ins).strip() == "2"
    machine.succeed("systemctl restart fairlead-proxy.service")
    assert machine.get_unit_property("fairlead-proxy.service", "Type") == "notify"
    write_route("other", '"b.test"', 'provider = "internal"')
    machine.succeed(
        "systemctl reload fairlead-proxy.service",
        "curl -sf --unix-socket /run/fairlead/admin.sock http://admin/status | grep -q other.toml",
    )
    write_route("other", '"b.test"', 'provider = "nobody"')
    machine.fail("systemctl reload fairlead-proxy.service")
    machine.succeed("rm /etc/fairlead/routes.d/other.toml", "systemctl reload fairlead-proxy.service")
    install("--bin-dir /usr/src/fairlead-programs")
    assert machine.succeed(drop_ins).strip() == "0"
    machine.succeed("systemctl restart fairlead-proxy.service")
    assert machine.get_unit_property("fairlead-proxy.service", "Type") == "notify-reload"

with subtest("a further installation comes and goes without the first one"):
    install("--instance internal")
    machine.succeed("fairlead-internal check", "systemctl start fairlead-internal-admin.socket")
    install("--remove --instance internal")
    of_instance = [path for path in left() if "internal" in path]
    assert of_instance == [], of_instance
    machine.succeed("curl -sf --cacert /var/lib/fairlead/certificates/internal-ca.pem https://app.test/")
    install("--remove")
    assert left() == own, left()
