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
