"""What systemd says of our units: no fault in any, no service exposed more than 1.5, limits on all."""


def ours(kinds: str) -> list[str]:
    listed = machine.succeed(f"systemctl list-unit-files --no-legend --plain --type={kinds} 'fairlead-*'")
    return [line.split()[0] for line in listed.splitlines()]


def exposure(unit: str) -> float:
    # Without --json, which gives the points but not their sum.
    said = machine.succeed(f"systemd-analyze security --no-pager {unit}")
    verdict = next(line for line in said.splitlines() if "Overall exposure level" in line)
    return float(verdict.split(": ")[1].split()[0])


start_all()
machine.wait_for_unit("multi-user.target")
services = ours("service")
shipped = {f"fairlead-{name}.service" for name in ["proxy", "watcher", "certs", "docker-events", "deliver"]}

with subtest("every service is exposed 1.5 or less"):
    assert shipped <= set(services), services
    for unit in services:
        assert exposure(unit) <= 1.5, machine.succeed(f"systemd-analyze security --no-pager {unit}")

with subtest("systemd finds no fault in any unit"):
    units = ours("service,socket,path,timer")
    assert {unit.rpartition(".")[2] for unit in units} == {"service", "socket", "path", "timer"}, units
    files = machine.succeed("systemctl show --property=FragmentPath --value " + " ".join(units)).split()
    assert len(files) == len(units), files
    # The machine has no man to look the pages up with.
    said = machine.succeed(f"systemd-analyze verify --man=no {' '.join(files)} 2>&1")
    about_us = [line for line in said.splitlines() if "fairlead" in line]
    assert about_us == [], said

with subtest("memory and tasks of every service have a limit of its own"):
    default = machine.succeed("systemctl show --property=DefaultTasksMax --value").strip()
    for unit in shipped:
        limits = machine.get_unit_info(unit)
        assert limits["MemoryMax"] != "infinity", unit
        assert limits["TasksMax"] not in ["infinity", default], unit

with subtest("following Docker's events writes messages to the journal, but no line for each mark"):
    journal = "journalctl --quiet --output=cat --unit=fairlead-docker-events.service"
    machine.succeed(
        "systemctl stop fairlead-watcher.path fairlead-watcher.timer fairlead-docker-events.service",
        "rm -f /run/fairlead/watcher/dirty",
        "systemctl start fairlead-docker-events.service",
    )
    machine.wait_until_succeeds("test -e /run/fairlead/watcher/dirty", timeout=30)
    machine.succeed("systemctl stop fairlead-docker-events.service", "journalctl --sync")
    machine.succeed(f"{journal} | grep 'following the events'")
    machine.fail(f"{journal} | grep -x dirty")

with subtest("the sandbox lets the proxy and the certs program confine themselves with Landlock"):
    lacks_it, _ = machine.execute("grep -q landlock_create_ruleset /proc/kallsyms")
    machine.succeed("systemctl restart fairlead-proxy.service", "systemctl start fairlead-certs.service")
    for unit in ["fairlead-proxy", "fairlead-certs"]:
        said = machine.succeed(f"journalctl --sync; journalctl --output=cat --unit={unit}.service")
        assert ("no Landlock" in said) == bool(lacks_it) and "Landlock failed" not in said, said
