# Every script in vm-tests/ as the testScript of a NixOS VM test. The machines have the same files,
# neighbours and names as the Debian machine of vm-tests/lab, from the same fixtures; the ACME server has one
# of its own.
{
  lib,
  pkgs,
  module,
}:
let
  scripts = lib.filterAttrs (name: type: type == "regular" && lib.hasSuffix ".py" name) (
    builtins.readDir ../vm-tests
  );

  # A test script cannot import another file.
  steps = builtins.readFile ../vm-tests/fixtures/steps.py;

  neighbours = ../vm-tests/fixtures/root/etc;

  busybox = pkgs.busybox.override { enableStatic = true; };

  # Only the program: its applets must not stand in for the system's.
  busyboxProgram = pkgs.runCommand "busybox-program" { } ''
    mkdir -p $out/bin
    ln -s ${busybox}/bin/busybox $out/bin/
  '';

  fixtures = pkgs.runCommand "fairlead-test" { nativeBuildInputs = [ pkgs.openssl ]; } ''
    cp -r --no-preserve=mode ${neighbours}/fairlead-test $out
    sh ${../vm-tests/fixtures/make} $out ${busybox}/bin/busybox
  '';

  units = pkgs.runCommand "fairlead-test-units" { } ''
    mkdir -p $out/lib/systemd/system
    cp --no-preserve=mode ${neighbours}/systemd/system/*.service $out/lib/systemd/system/
    sed -i 's|/usr/bin/pebble|${pkgs.pebble}/bin/pebble|' $out/lib/systemd/system/*.service
  '';

  # On both: the files, a name server, and what the scripts call.
  common = {
    environment.etc."resolv.conf".source = neighbours + "/resolv.conf";
    # They start commands as units without a word about where those are.
    environment.etc."systemd/system.conf.d/path.conf".text = ''
      [Manager]
      DefaultEnvironment=PATH=/run/current-system/sw/bin
    '';
    environment.systemPackages = [
      pkgs.curl
      pkgs.jq
    ];
    systemd.packages = [ units ];
    systemd.services.pebble-challtestsrv.wantedBy = [ "multi-user.target" ];
    systemd.tmpfiles.rules = [ "C /etc/fairlead-test - - - - ${fixtures}" ];
    documentation.enable = false;
  };

  acme =
    { nodes, ... }:
    {
      imports = [ common ];
      networking.firewall.enable = false;
      systemd.services.pebble.wantedBy = [ "multi-user.target" ];
      systemd.services.pebble-challtestsrv.environment.SITES = nodes.machine.networking.primaryIPAddress;
    };

  machine = { nodes, ... }: {
    imports = [
      common
      module
    ];

    services.fairlead = {
      enable = true;
      openFirewall = true;
      docker.enable = true;
      acme.acceptTerms = true;
      instances.internal = {
        listen.http = [ "8081" ];
        listen.https = [ "8444" ];
        settings.certificates.provider = "internal";
      };
    };
    # The scripts write the operator's files themselves, as on any other system.
    environment.etc = {
      "fairlead/fairlead.toml".enable = false;
      "fairlead/routes.d/nixos.toml".enable = false;
      "fairlead-internal/fairlead.toml".enable = false;
      "fairlead-internal/routes.d/nixos.toml".enable = false;
    };
    systemd.tmpfiles.rules = [
      "C /etc/fairlead/fairlead.toml - - - - ${neighbours}/fairlead/fairlead.toml"
    ];
    networking.hosts.${nodes.acme.networking.primaryIPAddress} = [ "acme.test" ];

    virtualisation.docker.enable = true;
    virtualisation.podman.enable = true;
    virtualisation.memorySize = 2048;
    security.pki.certificateFiles = [ "${fixtures}/ca.pem" ];
    environment.systemPackages = [
      busyboxProgram
      pkgs.openssl
      pkgs.python3
    ];
  };

  test =
    file: _:
    let
      name = lib.removeSuffix ".py" file;
    in
    lib.nameValuePair "vm-${name}" (
      pkgs.testers.runNixOSTest {
        name = "fairlead-${name}";
        globalTimeout = 900;
        nodes = { inherit machine acme; };
        testScript = steps + builtins.readFile (../vm-tests + "/${file}");
      }
    );
in
lib.mapAttrs' test scripts
