"""How long things take and how much memory they need. Printed and never asserted: a machine that is busy with
something else takes longer."""

# Runs the command `docker ARGUMENT NAME` for each of the names that follow two arguments, one after another: the first is
# a file of authorities, or nothing for plain HTTP. Prints for each how many milliseconds passed from its beginning until
# the event of the container's start, by Docker's clock, until its end, and until the site NAME.test answered.
STARTS = r'''
import json, socket, ssl, subprocess, sys, time

events = socket.socket(socket.AF_UNIX)
events.connect("/run/docker.sock")
events.sendall(b'GET /events?filters={"event":["start"]} HTTP/1.0\r\nHost: docker\r\n\r\n')
lines = events.makefile("r")
while lines.readline().strip():
    pass

authorities, arguments, *names = sys.argv[1:]
tls = ssl.create_default_context(cafile=authorities) if authorities else None

def answers(host):
    with socket.create_connection(("127.0.0.1", 443 if tls else 80), timeout=10) as proxy:
        try:
            stream = tls.wrap_socket(proxy, server_hostname=host) if tls else proxy
        except ssl.SSLError:
            return False
        stream.sendall(f"GET / HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
        return b" 200 " in stream.recv(64)

for name in names:
    began = time.time_ns()
    since = lambda moment: (moment - began) // 1_000_000
    command = subprocess.Popen(["docker", *arguments.replace("NAME", name).split()], stdout=subprocess.DEVNULL)
    ended = None
    while not answers(name + ".test"):
        if ended is None and command.poll() is not None:
            ended = time.time_ns()
        time.sleep(0.003)
    live = time.time_ns()
    command.wait()
    event = json.loads(lines.readline())
    assert event["Actor"]["Attributes"]["name"] == name, event
    print(since(event["timeNano"]), since(ended or time.time_ns()), since(live), flush=True)
    # The next one is alone, too.
    time.sleep(1.2)
'''

# A daemon that lists as many containers as its first argument says, each of them the one that the real daemon
# lists, under other names and addresses.
MANY = r'''
import json, socket, subprocess, sys

def ask(path):
    return json.loads(subprocess.check_output(["curl", "-s", "-g", "--unix-socket", "/run/docker.sock", "http://docker" + path]))

[one] = ask('/containers/json?filters={"name":["^/site-1$"]}')
[network] = one["NetworkSettings"]["Networks"]

def container(number):
    copy = json.loads(json.dumps(one))
    copy["Id"], copy["Names"] = format(number, "064x"), [f"/site-{number}"]
    copy["Labels"]["fairlead.hosts"] = f"site-{number}.test"
    copy["NetworkSettings"]["Networks"][network]["IPAddress"] = f"10.9.{number // 250}.{number % 250 + 1}"
    return copy

answers = {
    "containers": json.dumps([container(number) for number in range(int(sys.argv[1]))]).encode(),
    "networks": json.dumps(ask("/networks")).encode(),
    "images": json.dumps(ask("/images/" + one["ImageID"] + "/json")).encode(),
}

listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[2])
listener.listen()
while True:
    connection = listener.accept()[0]
    lines = connection.makefile("rw", newline="\r\n")
    path = lines.readline().split()[1]
    while lines.readline().strip():
        pass
    [body] = [answers[word] for word in path.split("/") if word in answers]
    head = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: "
    connection.sendall(head.encode() + str(len(body)).encode() + b"\r\n\r\n" + body)
    lines.close()
    connection.close()
'''


def time_of(command: str, rounds: int = 25) -> str:
    """The median and the least of some runs, as words. The shell that runs the command is not counted, and between two
    runs there is time for what the first one leaves to do."""
    loop = (
        f"for i in $(seq {rounds}); do since=$EPOCHREALTIME; {command} >/dev/null 2>&1 || exit 1; until=$EPOCHREALTIME;"
        " echo $(( (${until/./} - ${since/./}) / 100 )); sleep 0.1; done"
    )
    taken = sorted(int(line) / 10 for line in machine.succeed(loop).split())
    return f"median {taken[len(taken) // 2]:.0f} ms, least {taken[0]:.0f} ms"


def starts(arguments: str, names: list[str], authorities: str = "") -> list[tuple[int, ...]]:
    """What `STARTS` prints."""
    machine.succeed(f"cat > /tmp/starts.py <<'END'\n{STARTS}\nEND")
    said = machine.succeed(f"python3 /tmp/starts.py '{authorities}' '{arguments}' {' '.join(names)}").splitlines()
    assert len(said) == len(names), said
    return [tuple(map(int, line.split())) for line in said]


def median(numbers) -> int:
    numbers = sorted(numbers)
    return numbers[len(numbers) // 2]


def memory(unit: str) -> str:
    pid = machine.get_unit_info(unit)["MainPID"]
    lines = machine.succeed(f"grep -E '^Vm(RSS|HWM)' /proc/{pid}/status").splitlines()
    now, most = sorted(int(line.split()[1]) / 1024 for line in lines)
    return f"{now:.1f} MB resident, {most:.1f} MB at most"


start_all()
machine.wait_for_unit("multi-user.target")
machine.wait_for_unit("docker.service")
machine.wait_for_unit("fairlead-docker-events.service")
machine.succeed("docker load -i /etc/fairlead-test/image.tar")
names = [f"site-{number}" for number in range(1, 101)]

with subtest("a pass as a unit, with nothing changed"):
    machine.succeed("curl -s -o /dev/null http://127.0.0.1/", "systemctl start fairlead-watcher.service")
    machine.log(f"the proxy with nothing to serve: {memory('fairlead-proxy.service')}")
    # With favordynmods a unit starts faster.
    machine.log(f"control groups: {machine.succeed('findmnt --noheadings --output OPTIONS /sys/fs/cgroup').strip()}")
    machine.log(f"systemctl start fairlead-watcher: {time_of('systemctl start fairlead-watcher.service')}")
    # What is left of it when nothing is done in it: the sandbox, and systemd's own work.
    for what, line in [("that does nothing", "/bin/true"), ("that does nothing, outside the sandbox", "+/bin/true")]:
        drop_in("fairlead-watcher.service", "nothing", "[Service]", "ExecStart=", f"ExecStart={line}")
        machine.log(f"  the same unit with a program {what}: {time_of('systemctl start fairlead-watcher.service')}")
    take_away("fairlead-watcher.service", "nothing")
    for command in ["systemd-run --wait --property=Type=oneshot true", "fairlead-watcher", "fairlead reload"]:
        machine.log(f"  {command}: {time_of(command)}")

with subtest("from docker run to the first HTTPS 200, with a certificate there"):
    labels = "--label fairlead.hosts=NAME.test --label fairlead.provider=internal"
    runs = [f"run-{number}" for number in range(1, 22)]
    # Each name has its certificate from an earlier container.
    for name in runs:
        machine.succeed(f"docker run -d --name {name} {labels.replace('NAME', name)} fairlead-test/site")
    machine.wait_until_succeeds(f"test $(ls /var/lib/fairlead/certificates/*/key.pem | wc -l) = {len(runs)}", timeout=60)
    machine.succeed(f"docker rm -f {' '.join(runs)}")
    machine.wait_until_fails("grep ^upstreams /var/lib/fairlead/routes/docker.toml", timeout=60)
    taken = starts(f"run -d --name NAME {labels} fairlead-test/site", runs, "/var/lib/fairlead/certificates/internal-ca.pem")
    event, ended, live = (median(column) for column in zip(*taken))
    machine.log(
        f"docker run to the first HTTPS 200: median {live} ms; the event of the start came after {event} ms, and docker run"
        f" itself took {ended} ms; from the event to the 200: median {median(live - event for event, _, live in taken)} ms"
    )
    machine.succeed(f"docker rm -f {' '.join(runs)}")

with subtest("from the event of a start to the live route"):
    for name in names:
        words = f"hosts={name}.test", "https-only=false", "provider=off"
        labels = " ".join(f"--label fairlead.{word}" for word in words)
        machine.succeed(f"docker create --name {name} {labels} fairlead-test/site")
    waited = [live - event for event, _, live in starts("start NAME", names)]
    for few in [10, 50, 100]:
        these = sorted(waited[:few])
        machine.log(f"event to live route, over {few} starts: median {median(these)} ms, p99 {these[few * 99 // 100 - 1]} ms")

with subtest("memory"):
    machine.log(f"fairlead-watcher --follow, after these starts: {memory('fairlead-docker-events.service')}")
    machine.log(f"the proxy with their routes: {memory('fairlead-proxy.service')}")

with subtest("a pass by the number of containers"):
    machine.succeed(f"cat > /tmp/many.py <<'END'\n{MANY}\nEND")
    for count in [10, 100, 1000]:
        machine.succeed(
            f"systemd-run --unit=many-{count} python3 /tmp/many.py {count} /tmp/many-{count}.sock",
            f"mkdir -p /tmp/many-{count}/routes /tmp/many-{count}/watcher",
        )
        machine.wait_for_file(f"/tmp/many-{count}.sock", timeout=30)
        directories = f"--state-dir /tmp/many-{count} --runtime-dir /tmp/many-{count}"
        watch = f"fairlead-watcher --socket /tmp/many-{count}.sock {directories}"
        first = time_of(f"rm -f /tmp/many-{count}/routes/docker.toml && {watch}", rounds=5)
        again = time_of(watch, rounds=5)
        machine.succeed(f"systemctl stop many-{count}")
        found = machine.succeed(f"grep -c '^\\[\\[route' /tmp/many-{count}/routes/docker.toml").strip()
        assert found == str(count), found
        machine.log(f"a pass over {count} containers: {first}; with nothing changed: {again}")
