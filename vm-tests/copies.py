"""A renewed certificate reaches a program that cannot read the store: with owner and mode, and its unit told."""

start_all()
machine.wait_for_unit("multi-user.target")

machine.succeed(
    "mkdir -p /srv/mail",
    "printf '[Service]\\nExecStart=sleep infinity\\nUser=nobody\\nExecReload=cp /srv/mail/key.pem /tmp/seen.pem\\n'"
    " > /run/systemd/system/mail.service",
    "printf '[Service]\\nExecStart=sleep infinity\\nExecReload=touch /run/told\\n' > /run/systemd/system/turn.service",
    "systemctl daemon-reload",
    "systemctl start mail.service turn.service",
    "printf '[certificates]\\nprovider = \"internal\"\\nreload-units = [\"turn.service\"]\\n"
    "[[certificates.copy]]\\nname = \"mail.test\"\\nfullchain = \"/srv/mail/chain.pem\"\\nkey = \"/srv/mail/key.pem\"\\n"
    "owner = \"nobody\"\\nreload-units = [\"mail.service\"]\\n' > /etc/fairlead/fairlead.toml",
    "printf '[[route]]\\nhosts = [\"mail.test\"]\\nredirect = \"https://www.test\"\\n' > /etc/fairlead/routes.d/mail.toml",
    "fairlead check",
)

with subtest("a new certificate is copied, and both units know"):
    machine.succeed("systemctl start fairlead-certs.service")
    machine.wait_until_succeeds("cmp /srv/mail/key.pem /var/lib/fairlead/certificates/mail.test/key.pem", timeout=30)
    machine.wait_until_succeeds("test -e /run/told && cmp /srv/mail/key.pem /tmp/seen.pem", timeout=30)
    assert machine.succeed("stat -c '%U %a' /srv/mail/key.pem").strip() == "nobody 600"

with subtest("another one takes its place in the same way"):
    # A start would join a pass under way, which has read already what is removed here.
    stop_passes_of_certs()
    machine.succeed("rm /run/told /var/lib/fairlead/certificates/mail.test/*.pem", "systemctl start fairlead-certs.service")
    machine.wait_until_succeeds("cmp /srv/mail/key.pem /var/lib/fairlead/certificates/mail.test/key.pem", timeout=30)
    machine.wait_until_succeeds("test -e /run/told && cmp /srv/mail/key.pem /tmp/seen.pem", timeout=30)
    machine.succeed("! systemctl is-failed fairlead-deliver.service")
