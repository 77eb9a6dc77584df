# Every script in vm-tests/ as the testScript of a NixOS VM test. The machine has the same files,
# neighbours and names as the Debian machine of vm-tests/lab, from the same fixtures.
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

  machine = {
    imports = [ module ];

    services.fairlead = {
      enable = true;
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
      "resolv.conf".source = neighbours + "/resolv.conf";
      # They start commands as units without a word about where those are.
      "systemd/system.conf.d/path.conf".text = ''
        [Manager]
        DefaultEnvironment=PATH=/run/current-system/sw/bin
      '';
    };
    systemd.tmpfiles.rules = [
      "C /etc/fairlead-test - - - - ${fixtures}"
      "C /etc/fairlead/fairlead.toml - - - - ${neighbours}/fairlead/fairlead.toml"
    ];

    documentation.enable = false;
    virtualisation.docker.enable = true;
    virtualisation.podman.enable = true;
    virtualisation.memorySize = 2048;
    security.pki.certificateFiles = [ "${fixtures}/ca.pem" ];
    systemd.packages = [ units ];
    systemd.services.pebble.wantedBy = [ "multi-user.target" ];
    systemd.services.pebble-challtestsrv.wantedBy = [ "multi-user.target" ];
    environment.systemPackages = [
      busyboxProgram
      pkgs.curl
      pkgs.jq
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
        nodes.machine = machine;
        testScript = steps + builtins.readFile (../vm-tests + "/${file}");
      }
    );
in
lib.mapAttrs' test scripts
