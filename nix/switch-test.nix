# A NixOS VM test of what only NixOS has: the change from one generation of the system to the next.
{ pkgs, module }:
let
  port = 8081;
  upstreams = [ "http://127.0.0.1:${toString port}" ];
in
pkgs.testers.runNixOSTest {
  name = "fairlead-switch";
  globalTimeout = 600;

  nodes.machine = {
    imports = [ module ];
    documentation.enable = false;
    system.switch.enable = true;
    services.fairlead = {
      enable = true;
      settings.certificates.provider = "internal";
      routes."one.test" = { inherit upstreams; };
      docker.enable = true;
      templates.sites = {
        text = "{% for route in routes %}{{ route.hosts | join(' ') }}\n{% endfor %}";
        destination = "/srv/sites";
        mode = "0600";
      };
    };
    virtualisation.docker.enable = true;
    systemd.tmpfiles.rules = [ "d /srv" ];
    systemd.services.site = {
      wantedBy = [ "multi-user.target" ];
      script = ''
        cd "$(mktemp -d)"
        echo hello >index.html
        exec ${pkgs.python3}/bin/python3 -m http.server --bind 127.0.0.1 ${toString port}
      '';
      serviceConfig.PrivateTmp = true;
    };
    specialisation.routes.configuration = {
      services.fairlead.routes."two.test" = { inherit upstreams; };
    };
    # Stands for a new version of the proxy: all that counts is that its unit differs.
    specialisation.program.configuration = {
      systemd.services.fairlead-proxy.environment.GENERATION = "2";
    };
  };

  testScript = ''
    CA = "/var/lib/fairlead/certificates/internal-ca.pem"
    BY_HAND = '[[route]]\\nhosts = ["hand.test"]\\nupstreams = ["http://127.0.0.1:${toString port}"]\\n'


    def get(host: str) -> str:
        return f"curl --fail --silent --show-error --cacert {CA} --resolve {host}:443:127.0.0.1 https://{host}/"


    def to(system: str) -> str:
        return f"/run/booted-system/{system}/bin/switch-to-configuration test 2>&1"


    def switch(specialisation: str) -> None:
        machine.succeed(to(f"specialisation/{specialisation}"))


    def pid() -> str:
        return machine.get_unit_info("fairlead-proxy.service")["MainPID"]


    machine.wait_for_unit("multi-user.target")

    with subtest("a route of the configuration is a site"):
        machine.wait_until_succeeds(f"{get('one.test')} | grep -x hello", timeout=60)
        machine.fail(get("two.test"))

    with subtest("a new route is live without a restart, beside one that was written by hand"):
        before = pid()
        machine.succeed(f"printf '{BY_HAND}' > /etc/fairlead/routes.d/hand.toml")
        switch("routes")
        for host in ["two.test", "hand.test"]:
            machine.wait_until_succeeds(f"{get(host)} | grep -x hello", timeout=60)
        assert pid() == before, "the proxy was restarted"

    with subtest("and in the file of a template"):
        machine.wait_until_succeeds("grep -x two.test /srv/sites", timeout=60)
        assert machine.succeed("stat -c %a /srv/sites").strip() == "600"

    with subtest("a switch whose reload is refused fails with the reason, and the routes before serve"):
        machine.succeed("echo wrong > /etc/fairlead/routes.d/wrong.toml")
        machine.fail(to("."))
        machine.succeed("journalctl -u fairlead-apply.service | grep wrong.toml:1")
        machine.succeed(f"{get('two.test')} | grep -x hello")
        machine.succeed("rm /etc/fairlead/routes.d/wrong.toml", "fairlead reload")

    with subtest("a new program takes over and no connection is refused"):
        before = pid()
        machine.succeed(
            "(until test -e /tmp/enough; do curl --silent --output /dev/null http://127.0.0.1/"
            " || echo $? >>/tmp/refused; echo >>/tmp/asked; done) >/dev/null 2>&1 &"
        )
        machine.wait_for_file("/tmp/asked")
        switch("program")
        machine.succeed("touch /tmp/enough")
        assert pid() != before, "the proxy was not restarted"
        machine.fail("test -e /tmp/refused")
        machine.wait_until_succeeds(f"{get('one.test')} | grep -x hello", timeout=60)
  '';
}
