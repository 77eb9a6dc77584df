"""A pair that another program keeps for its group reaches the store through the sandbox, and again at its word."""

KEPT = "/var/lib/acme/app.test"
STORE = "/var/lib/fairlead/certificates/app.test"
SHOWN = (
    "openssl s_client -connect 127.0.0.1:443 -servername app.test </dev/null 2>/dev/null"
    " | openssl x509 -noout -serial"
)


def renew() -> None:
    """As `security.acme` of NixOS keeps its pairs, with what `useACMEHost` adds to its `postRun`."""
    machine.succeed(
        f"mkdir -p {KEPT}",
        "openssl req -quiet -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=app.test"
        f" -addext subjectAltName=DNS:app.test -keyout {KEPT}/key.pem -out {KEPT}/fullchain.pem",
        f"chown -R root:keepers {KEPT}",
        f"chmod 750 {KEPT}",
        f"chmod 640 {KEPT}/*.pem",
        "touch /run/fairlead/certs/dirty",
    )


start_all()
machine.wait_for_unit("multi-user.target")
machine.succeed("groupadd keepers")
pair = f'{{ fullchain = "{KEPT}/fullchain.pem", key = "{KEPT}/key.pem" }}'
write_route("site", '"app.test"', f"provider = {pair}")
machine.succeed("systemctl restart fairlead-proxy.service")

with subtest("a pass that is not of the group tells what it may not read"):
    renew()
    machine.wait_until_succeeds(f"journalctl -o cat -u fairlead-certs.service | grep '{KEPT}.*Permission denied'", timeout=30)
    machine.fail(f"test -e {STORE}/fullchain.pem")

with subtest("in the group it takes the pair, and clients see it"):
    drop_in("fairlead-certs.service", "group", "[Service]", "SupplementaryGroups=keepers")
    renew()
    machine.wait_until_succeeds(f"cmp {KEPT}/key.pem {STORE}/key.pem", timeout=30)
    first = machine.wait_until_succeeds(SHOWN, timeout=30).strip()

with subtest("a renewed pair takes its place without a restart"):
    renew()
    machine.wait_until_succeeds(f"cmp {KEPT}/key.pem {STORE}/key.pem", timeout=30)
    machine.wait_until_succeeds(f"{SHOWN} | grep -vx {first}", timeout=30)
