# The module, evaluated: what it accepts, what it refuses, and with which words.
{
  lib,
  pkgs,
  module,
}:
let
  host = {
    boot.isContainer = true;
    nixpkgs.hostPlatform = pkgs.stdenv.hostPlatform.system;
    system.stateVersion = lib.trivial.release;
  };

  evaluate =
    configuration:
    (import (pkgs.path + "/nixos/lib/eval-config.nix") {
      inherit lib;
      system = null;
      modules = [
        host
        module
        configuration
      ];
    }).config;

  complaints =
    settings:
    let
      inherit
        (evaluate {
          services.fairlead = settings // {
            enable = true;
          };
        })
        assertions
        ;
    in
    map (assertion: assertion.message) (lib.filter (assertion: !assertion.assertion) assertions);

  # The example that people copy: the first block of Nix in the README.
  readme =
    let
      block = lib.elemAt (lib.splitString "```nix\n" (builtins.readFile ../README.md)) 1;
      example = lib.head (lib.splitString "```" block);
    in
    import (builtins.toFile "readme.nix" "{ inputs }: ${example}") {
      inputs.fairlead.nixosModules.default = module;
    };

  upstreams = [ "http://127.0.0.1:8080" ];
  route."a.test" = { inherit upstreams; };
  says = expected: found: lib.length found == 1 && lib.hasInfix expected (lib.head found);

  claims = {
    "the README's example builds a system" = lib.isString (evaluate readme)
      .system.build.toplevel.drvPath;
    "nothing is asked of anybody without routes" = complaints { } == [ ];
    "ACME needs accepted terms" = says "acme.acceptTerms = true" (complaints {
      routes = route;
    });
    "the names that need ACME are said" = says "(a.test)" (complaints {
      routes = route // {
        "b.test" = {
          inherit upstreams;
          provider = "internal";
        };
      };
    });
    "the own authority needs no terms" =
      complaints {
        routes = route;
        settings.certificates.provider = "internal";
      } == [ ];
    "containers need a Docker" = says "virtualisation.docker.enable = true" (complaints {
      docker.enable = true;
      acme.acceptTerms = true;
    });
    "a certificate of security.acme is copied from where it lies" =
      let
        config = evaluate {
          security.acme.acceptTerms = true;
          security.acme.defaults.email = "you@example.com";
          security.acme.certs."example.com" = {
            group = "web";
            webroot = "/var/lib/acme/acme-challenge";
          };
          services.fairlead = {
            enable = true;
            routes."a.test" = {
              inherit upstreams;
              useACMEHost = "example.com";
            };
          };
        };
      in
      config.systemd.services.fairlead-certs.serviceConfig.SupplementaryGroups == [ "web" ]
      && lib.hasInfix "/run/fairlead/certs/dirty" config.security.acme.certs."example.com".postRun
      && lib.all (assertion: assertion.assertion) config.assertions;
    "who makes a certificate is said once" =
      let
        route = {
          inherit upstreams;
          useACMEHost = "example.com";
          provider = "internal";
        };
        found = complaints { routes."a.test" = route; };
      in
      lib.any (lib.hasInfix "`useACMEHost` of these routes") found;
    "a secret does not lie in the store" = says "in the Nix store" (complaints {
      credentials.tsig = "${builtins.storeDir}/x-tsig";
    });
    "a secret is a credential of the certs program" =
      let
        config = evaluate {
          services.fairlead.enable = true;
          services.fairlead.credentials.tsig = "/run/secrets/tsig";
        };
        inherit (config.systemd.services.fairlead-certs) serviceConfig;
      in
      serviceConfig.LoadCredential == [ "tsig:/run/secrets/tsig" ];
    "the firewall opens what is listened to" =
      let
        config = evaluate {
          services.fairlead = {
            enable = true;
            openFirewall = true;
            listen.http = [ "192.0.2.1:80" ];
            listen.https = [
              "192.0.2.1:443"
              "[2001:db8::1]:8443"
            ];
            metrics.enable = true;
          };
        };
        inherit (config.systemd) sockets;
      in
      lib.sort lib.lessThan config.networking.firewall.allowedTCPPorts == [
        80
        443
        8443
      ]
      && lib.head sockets.fairlead-https.listenStreams == ""
      && lib.length sockets.fairlead-https.listenStreams == 3
      && lib.elem "127.0.0.1:9180" sockets.fairlead-metrics.listenStreams;
    "another socket will do" =
      complaints {
        docker.enable = true;
        acme.acceptTerms = true;
        settings.docker.socket = "/run/podman/podman.sock";
      } == [ ];
  };

  broken = lib.attrNames (lib.filterAttrs (_: holds: !holds) claims);
in
if broken == [ ] then
  pkgs.runCommand "fairlead-module-tests" { } "touch $out"
else
  throw "the module breaks its promises: ${lib.concatStringsSep "; " broken}"
