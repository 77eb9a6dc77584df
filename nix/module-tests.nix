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
      specialArgs.inputs.fairlead.nixosModules.default = module;
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

  # The blocks in a page whose first line is this.
  blocks =
    kind: page:
    map (block: lib.head (lib.splitString "```" block)) (
      lib.tail (lib.splitString "```${kind}\n" (builtins.readFile page))
    );
  examples = blocks "nix";

  # The example that people copy: the first block of Nix in the README.
  readme = import (builtins.toFile "readme.nix" (lib.head (examples ../README.md)));
  # And the flake around it.
  flake = import (builtins.toFile "flake.nix" (lib.head (blocks "nix flake" ../docs/nixos.md)));

  # The lines in a configuration that has what they build on.
  inPlace =
    example:
    evaluate {
      imports = [ (import (builtins.toFile "example.nix" "{ ${example} }")) ];
      services.fairlead.enable = true;
      services.fairlead.acme.acceptTerms = lib.mkDefault true;
      virtualisation.docker.enable = true;
      security.acme.acceptTerms = true;
      security.acme.defaults.email = "you@example.com";
      security.acme.certs."example.com".webroot = "/var/lib/acme/acme-challenge";
    };
  shown = map inPlace (
    lib.concatMap examples [
      ../docs/certificates.md
      ../docs/instances.md
      ../docs/nixos.md
    ]
  );

  # What the programs read on a system. `fairlead check` judges it when it is built.
  configurations =
    config:
    lib.concatLists (
      lib.mapAttrsToList (
        name: service: lib.optionals (lib.hasSuffix "-apply" name) service.restartTriggers
      ) config.systemd.services
    );

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

  # What a unit and its drop-ins say, one file after the other, as systemd reads them: `Service.Type=notify`.
  # An empty value takes back what was said before.
  said =
    files:
    let
      read =
        state: line:
        let
          section = builtins.match "\\[(.*)]" line;
          key = "${state.section}.${lib.head (lib.splitString "=" line)}=";
          others = lib.filter (assignment: !lib.hasPrefix key assignment) state.assignments;
        in
        if line == "" || lib.hasPrefix "#" line then
          state
        else if section != null then
          state // { section = lib.head section; }
        else if lib.hasSuffix "=" line then
          state // { assignments = others; }
        else
          state // { assignments = state.assignments ++ [ "${state.section}.${line}" ]; };
      start = {
        section = "";
        assignments = [ ];
      };
    in
    lib.sort lib.lessThan (
      lib.unique (lib.foldl' read start (lib.concatMap (lib.splitString "\n") files)).assignments
    );

  # What NixOS adds of its own: when a switch restarts the unit, and where programs are found.
  isOfNixos = assignment: builtins.match "[A-Za-z]+\\.(X-|Environment=).*" assignment != null;

  rendered = config: unit: config.systemd.units.${unit}.text or "";

  saysAsShipped =
    config: unit:
    let
      files = [
        (builtins.readFile (../systemd/system + "/${unit}"))
      ]
      ++ lib.optional (lib.hasSuffix ".service" unit) (
        builtins.readFile ../systemd/system/fairlead-.service.d/50-sandbox.conf
      );
    in
    lib.filter (assignment: !isOfNixos assignment) (said (files ++ [ (rendered config unit) ]))
    == said files;

  # The names of the units that two systems do not have alike, beside those that come from the package.
  changed =
    before: after:
    lib.attrNames (lib.filterAttrs (name: unit: unit.text != rendered before name) after.systemd.units);
  switching =
    settings:
    (evaluate {
      services.fairlead = {
        enable = true;
        docker.enable = true;
        metrics.enable = true;
      }
      // settings;
    });

  # The folders of src/ that a program is built from; of the others it has the file that Cargo reads.
  sources =
    program:
    lib.filter (
      folder: lib.attrNames (builtins.readDir "${program.src}/src/${folder}") != [ "Cargo.toml" ]
    ) (lib.attrNames (builtins.readDir "${program.src}/src"));

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
    "the flake of docs/nixos.md hands the modules what the README's example takes" =
      let
        inputs.nixpkgs.lib.nixosSystem = made: made.specialArgs.inputs;
      in
      flake.inputs ? fairlead && (flake.outputs inputs).nixosConfigurations.HOST == inputs;
    "each unit is wanted by what its [Install] says" = lib.all lib.id (
      lib.mapAttrsToList isWantedAsShipped shipped
    );
    "each unit says what it says on other systems" = lib.all (saysAsShipped full.config) (
      lib.attrNames shipped
    );
    "changed routes change no unit but the one that reloads" =
      changed full.config (switching {
        routes = route;
      }) == [ "fairlead-apply.service" ];
    "changed settings restart no more than what does not reload" =
      changed full.config (switching {
        settings.docker.network = "web";
      }) == [
        "fairlead-apply.service"
        "fairlead-docker-events.service"
      ];
    "sockets, paths and timers name no program, so that none changes with one" = lib.all (
      unit:
      lib.hasSuffix ".service" unit
      || !lib.any (lib.hasInfix "/bin/") (said [ (builtins.readFile (../systemd/system + "/${unit}")) ])
    ) (lib.attrNames shipped);
    "a changed program restarts the proxy at once, and a pass of the certs program is left to end" =
      let
        unit = rendered full.config;
      in
      lib.hasInfix "X-StopIfChanged=false" (unit "fairlead-proxy.service")
      && !lib.hasInfix "X-RestartIfChanged" (unit "fairlead-proxy.service")
      && !lib.hasInfix "X-ReloadIfChanged" (unit "fairlead-proxy.service")
      && lib.hasInfix "X-RestartIfChanged=false" (unit "fairlead-certs.service");
    "a program changes with its own source and the contract alone" =
      lib.mapAttrs (_: sources) full.config.services.fairlead.package.programs == {
        fairlead-proxy = [
          "contract"
          "proxy"
        ];
        fairlead-watcher = [
          "contract"
          "watcher"
        ];
        fairlead-certs = [
          "certs"
          "contract"
          "dns-services"
        ];
        fairlead-cli = [
          "cli"
          "contract"
        ];
      };
    "the users and groups of sysusers.d are there" =
      lib.all (name: full.config.users.users ? ${name}) (sysusers "u")
      && lib.all (name: full.config.users.groups ? ${name}) (sysusers "u" ++ sysusers "g");
    "every option says what it is for" = lib.all (option: option ? description) options;
    "docs/nixos.md speaks of every option" =
      let
        words = lib.filter lib.isString (builtins.split "[^A-Za-z-]+" (builtins.readFile ../docs/nixos.md));
      in
      lib.all (option: lib.elem (lib.last option.loc) words) options;
    "the examples of the pages hold" = lib.all (
      config: lib.all (assertion: assertion.assertion) config.assertions
    ) shown;
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
    "each authority needs accepted terms of its own, and who stands in for it too" =
      let
        refused =
          settings:
          complaints {
            routes."a.test" = {
              inherit upstreams;
              provider = "staging";
            };
            acme.acceptTerms = true;
            inherit settings;
          };
        staging = {
          directory = "https://staging.test";
          accept-terms = true;
          fallback = [ "other" ];
        };
      in
      says "staging.accept-terms = true" (refused {
        authority.staging = removeAttrs staging [ "accept-terms" ];
        authority.other.accept-terms = true;
      })
      && says "other.accept-terms = true" (refused {
        authority = {
          inherit staging;
          other.directory = "https://other.test";
        };
      })
      &&
        refused {
          authority = {
            inherit staging;
            other.accept-terms = true;
          };
        } == [ ];
    "an authority that nobody asks needs none" =
      complaints {
        routes = route;
        acme.acceptTerms = true;
        settings.authority.staging.directory = "https://staging.test";
      } == [ ];
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
      &&
        config.networking.firewall.allowedTCPPorts == [
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
    "another socket will do" =
      complaints {
        docker.enable = true;
        acme.acceptTerms = true;
        settings.docker.socket = "/run/podman/podman.sock";
      } == [ ];
    "Podman's socket is opened in the group that NixOS gives it to" =
      let
        groups =
          podman: service:
          (evaluate {
            virtualisation.podman.enable = podman;
            services.fairlead = {
              enable = true;
              docker.enable = true;
              settings.docker.socket = "/run/podman/podman.sock";
            };
          }).systemd.services.${service}.serviceConfig.SupplementaryGroups or [ ];
      in
      lib.all (service: groups true service == [ "podman" ] && groups false service == [ ]) [
        "fairlead-watcher"
        "fairlead-docker-events"
      ];
  };

  # For nix/check-without-store.
  units = lib.mapAttrs (_: unit: unit.text) (
    lib.filterAttrs (name: _: lib.hasPrefix "fairlead-" name) full.config.systemd.units
  );

  broken = lib.attrNames (lib.filterAttrs (_: holds: !holds) claims);
in
if broken == [ ] then
  pkgs.runCommand "fairlead-module-tests" {
    configurations = lib.concatMap configurations ([ (evaluate readme) ] ++ shown);
    passthru = { inherit units; };
  } "touch $out"
else
  throw "the module breaks its promises: ${lib.concatStringsSep "; " broken}"
