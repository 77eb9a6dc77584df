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

  system =
    configuration:
    import (pkgs.path + "/nixos/lib/eval-config.nix") {
      inherit lib;
      system = null;
      modules = [
        host
        module
        configuration
      ];
    };
  evaluate = configuration: (system configuration).config;

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

  # The blocks of Nix in a page.
  examples =
    page:
    map (block: lib.head (lib.splitString "```" block)) (
      lib.tail (lib.splitString "```nix\n" (builtins.readFile page))
    );

  # The example that people copy: the first block of Nix in the README.
  readme =
    import (builtins.toFile "readme.nix" "{ inputs }: ${lib.head (examples ../README.md)}")
      {
        inputs.fairlead.nixosModules.default = module;
      };

  # Whether the lines can stand in a configuration that has what they build on.
  holds =
    example:
    let
      inherit
        (evaluate {
          imports = [ (import (builtins.toFile "example.nix" "{ ${example} }")) ];
          services.fairlead.enable = true;
          services.fairlead.acme.acceptTerms = lib.mkDefault true;
          virtualisation.docker.enable = true;
          security.acme.acceptTerms = true;
          security.acme.defaults.email = "you@example.com";
          security.acme.certs."example.com".webroot = "/var/lib/acme/acme-challenge";
        })
        assertions
        services
        ;
    in
    lib.all (assertion: assertion.assertion) assertions
    && builtins.deepSeq [
      services.fairlead.settings
      services.fairlead.routes
    ] true;

  # Everything that can be wanted.
  full = system {
    services.fairlead = {
      enable = true;
      docker.enable = true;
      metrics.enable = true;
    };
  };

  options = lib.filter (option: option.visible && !option.internal) (
    lib.optionAttrSetToDocList full.options.services.fairlead
  );

  linesOf = file: lib.splitString "\n" (builtins.readFile file);
  shipped = lib.filterAttrs (_: type: type == "regular") (builtins.readDir ../systemd/system);
  # `PREFIX=A B` in the lines of a unit, as [ "A" "B" ].
  wordsAfter =
    prefix: lines:
    lib.concatMap (line: lib.splitString " " (lib.removePrefix prefix line)) (
      lib.filter (lib.hasPrefix prefix) lines
    );
  wantedHere =
    unit:
    let
      type = lib.last (lib.splitString "." unit);
      found = full.config.systemd."${type}s".${lib.removeSuffix ".${type}" unit} or { };
    in
    found.wantedBy or [ ];
  isWantedAsShipped =
    unit: _:
    lib.sort lib.lessThan (wantedHere unit)
    == lib.sort lib.lessThan (wordsAfter "WantedBy=" (linesOf (../systemd/system + "/${unit}")));

  # The second word of each line of sysusers.d that begins with `kind`.
  sysusers =
    kind:
    map (words: lib.elemAt words 1) (
      lib.filter (words: lib.head words == kind) (
        map (line: lib.filter (word: word != "") (lib.splitString " " line)) (
          lib.filter (line: line != "") (linesOf ../systemd/sysusers.d/fairlead.conf)
        )
      )
    );

  upstreams = [ "http://127.0.0.1:8080" ];
  route."a.test" = { inherit upstreams; };
  says = expected: found: lib.length found == 1 && lib.hasInfix expected (lib.head found);

  claims = {
    "the README's example builds a system" = lib.isString (evaluate readme)
      .system.build.toplevel.drvPath;
    "each unit is wanted by what its [Install] says" = lib.all lib.id (
      lib.mapAttrsToList isWantedAsShipped shipped
    );
    "the users and groups of sysusers.d are there" =
      lib.all (name: full.config.users.users ? ${name}) (sysusers "u")
      && lib.all (name: full.config.users.groups ? ${name}) (sysusers "u" ++ sysusers "g");
    "every option says what it is for" = lib.all (option: option ? description) options;
    "the examples of docs/nixos.md hold" = lib.all holds (examples ../docs/nixos.md);
    "the examples of docs/certificates.md hold" = lib.all holds (examples ../docs/certificates.md);
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
    "hosts of a route are said once" = says "into `aliases`" (complaints {
      routes.wiki = {
        inherit upstreams;
        hosts = [ "wiki.test" ];
      };
      settings.certificates.provider = "internal";
    });
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
    "a template is a table of fairlead.toml" =
      let
        config = evaluate {
          services.fairlead.enable = true;
          services.fairlead.templates.sites = {
            text = "{{ values.greeting }}";
            values.greeting = "hello";
            destination = "/srv/sites";
            owner = "nobody";
            reloadUnits = [ "reader.service" ];
          };
        };
        template = lib.head config.services.fairlead.settings.template;
      in
      removeAttrs template [ "source" ] == {
        name = "sites";
        values.greeting = "hello";
        destination = "/srv/sites";
        owner = "nobody";
        mode = "0644";
        check = [ ];
        reload-units = [ "reader.service" ];
      }
      && lib.hasPrefix builtins.storeDir template.source;
    "a template has one source" =
      let
        complain =
          source:
          says "either `source` or `text`" (complaints {
            docker.enable = true;
            settings.docker.socket = "/run/podman/podman.sock";
            settings.certificates.provider = "internal";
            templates.sites = source // {
              destination = "/srv/sites";
            };
          });
      in
      complain { }
      && complain {
        source = "domains.txt";
        text = "sites";
      };
    "templates need who makes them" = says "docker.enable = true" (complaints {
      templates.sites = {
        source = "domains.txt";
        destination = "/srv/sites";
      };
    });
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
    "an instance is a second installation of everything" =
      let
        config = evaluate {
          services.fairlead = {
            enable = true;
            listen.http = [ "192.0.2.1:80" ];
            listen.https = [ "192.0.2.1:443" ];
            instances.internal = {
              listen.http = [ "10.0.0.5:80" ];
              listen.https = [ "10.0.0.5:443" ];
              openFirewall = true;
              credentials.tsig = "/run/secrets/tsig";
              acme.email = "you@internal.test";
              settings.certificates.provider = "internal";
              routes."a.test" = { inherit upstreams; };
            };
          };
        };
        inherit (config.systemd) sockets services;
      in
      lib.all (assertion: assertion.assertion) config.assertions
      && lib.elem "10.0.0.5:443" sockets.fairlead-internal-https.listenStreams
      && lib.elem "192.0.2.1:443" sockets.fairlead-https.listenStreams
      && config.environment.etc ? "fairlead-internal/fairlead.toml"
      && config.users.users ? fairlead-internal-proxy
      && config.users.groups ? fairlead-internal
      && services.fairlead-internal-proxy.wantedBy == services.fairlead-proxy.wantedBy
      && services.fairlead-internal-certs.serviceConfig.LoadCredential == [ "tsig:/run/secrets/tsig" ]
      && services.fairlead-certs.serviceConfig.LoadCredential == [ ]
      && config.services.fairlead.instances.internal.settings.acme.email == "you@internal.test"
      && config.networking.firewall.allowedTCPPorts == [
        80
        443
      ];
    "two installations do not listen at the same place" =
      let
        collide =
          own: other:
          lib.any (lib.hasInfix "listen at the same place") (complaints {
            listen.https = own;
            instances.internal.listen.http = [ "10.0.0.5:8080" ];
            instances.internal.listen.https = other;
          });
      in
      collide [ "443" ] [ "10.0.0.5:443" ]
      && collide [ "10.0.0.5:443" ] [ "0.0.0.0:443" ]
      && collide [ "10.0.0.5:443" ] [ "10.0.0.5:443" ]
      && !collide [ "10.0.0.6:443" ] [ "10.0.0.5:443" ]
      && !collide [ "[2001:db8::1]:443" ] [ "0.0.0.0:443" ];
    "a container is for one installation" =
      let
        tagged =
          proxytag:
          complaints {
            docker.enable = true;
            settings.docker.socket = "/run/podman/podman.sock";
            settings.certificates.provider = "internal";
            instances.internal = {
              listen.http = [ "8080" ];
              listen.https = [ "8443" ];
              docker.enable = true;
              settings.docker = {
                socket = "/run/podman/podman.sock";
              }
              // proxytag;
              settings.certificates.provider = "internal";
            };
          };
      in
      says "settings.docker.proxytag" (tagged { }) && tagged { proxytag = "internal"; } == [ ];
    "an instance is called as no part is" =
      let
        named =
          name:
          says "names cannot be those of instances" (complaints {
            instances.${name} = {
              listen.http = [ "8080" ];
              listen.https = [ "8443" ];
            };
          });
      in
      named "docker" && named "a-b" && !named "internal";
    "the examples of docs/instances.md hold" = lib.all holds (examples ../docs/instances.md);
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
