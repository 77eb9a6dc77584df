# The units come from the package as they are; this module says which of them are wanted, makes the
# users, and turns Nix options into the operator's files.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib)
    literalExpression
    mkEnableOption
    mkIf
    mkOption
    types
    ;
  cfg = config.services.fairlead;
  toml = pkgs.formats.toml { };

  routeType = types.submodule {
    freeformType = toml.type;
    options = {
      upstreams = mkOption {
        type = types.nonEmptyListOf (types.either types.str (types.attrsOf toml.type));
        example = [
          "http://127.0.0.1:8080"
          {
            url = "http://10.0.0.6:8080";
            weight = 3;
          }
        ];
        description = "URLs of the upstreams that answer for the route, or sets that say more of one. They share the load.";
      };
      aliases = mkOption {
        type = types.listOf types.str;
        default = [ ];
        example = [ "www.example.com" ];
        description = "Further hosts of the route, beside the primary that names it.";
      };
      redirectToPrimary = mkOption {
        type = types.bool;
        default = false;
        description = "Whether requests for the aliases are redirected to the primary.";
      };
      useACMEHost = mkOption {
        type = types.nullOr types.str;
        default = null;
        example = "example.com";
        description = ''
          Name of a certificate of {option}`security.acme.certs` that the route shows, instead of one that
          fairlead orders.
        '';
      };
      provider = mkOption {
        type = types.nullOr providerType;
        default = null;
        description = ''
          Who makes the certificate: `"acme"`, the name of an `authority`, `"internal"` or `"off"`; or
          `{ fullchain = "..."; key = "..."; }` if another program keeps one in these files. When null,
          {option}`services.fairlead.settings.certificates.provider` decides.
        '';
      };
    };
  };

  providerType = types.either types.str (types.attrsOf types.str);

  templateType = types.submodule {
    options = {
      source = mkOption {
        type = types.nullOr (types.either types.path types.str);
        default = null;
        example = "haproxy.cfg";
        description = "The file to make it from, or the name of a template that comes with fairlead.";
      };
      text = mkOption {
        type = types.nullOr types.lines;
        default = null;
        example = "{% for route in routes %}{{ route.hosts | join(' ') }}\n{% endfor %}";
        description = "What to make it from, instead of `source`.";
      };
      values = mkOption {
        type = types.attrsOf types.str;
        default = { };
        description = "Words for the template, as `values.NAME`.";
      };
      destination = mkOption {
        type = types.str;
        example = "/etc/haproxy/haproxy.cfg";
        description = "Where the file belongs. Its directory must exist.";
      };
      owner = mkOption {
        type = types.nullOr types.str;
        default = null;
        description = "The user whose file it is. Root's when null.";
      };
      group = mkOption {
        type = types.nullOr types.str;
        default = null;
        description = "The group whose file it is. The owner's when null.";
      };
      mode = mkOption {
        type = types.str;
        default = "0644";
        description = "The permission bits of the file, in octal digits.";
      };
      check = mkOption {
        type = types.listOf types.str;
        default = [ ];
        example = literalExpression ''[ (lib.getExe pkgs.haproxy) "-c" "-q" "-f" "{}" ]'';
        description = ''
          A program and its arguments, which must succeed before the file takes its place; `{}` is the path
          of the file that is to take it.
        '';
      };
      reloadUnits = mkOption {
        type = types.listOf types.str;
        default = [ ];
        example = [ "haproxy.service" ];
        description = "Units to reload after a change, if they run.";
      };
    };
  };

  listenOption =
    protocol: port:
    mkOption {
      type = types.nonEmptyListOf types.str;
      default = [ port ];
      example = [
        "192.0.2.1:${port}"
        "[2001:db8::1]:${port}"
      ];
      description = "Where to listen for ${protocol}: ports, or addresses with ports.";
    };

  withoutNulls = lib.filterAttrsRecursive (_: value: value != null);

  toRoute =
    primary: route:
    withoutNulls (
      removeAttrs route [
        "aliases"
        "redirectToPrimary"
        "useACMEHost"
      ]
    )
    // {
      hosts = [ primary ] ++ route.aliases;
    }
    // lib.optionalAttrs (route.useACMEHost != null) {
      provider = {
        fullchain = "/var/lib/acme/${route.useACMEHost}/fullchain.pem";
        key = "/var/lib/acme/${route.useACMEHost}/key.pem";
      };
    }
    // lib.optionalAttrs route.redirectToPrimary { redirect-to-primary = true; };

  routes = lib.mapAttrsToList toRoute cfg.routes;

  toTemplate =
    name: template:
    withoutNulls {
      inherit name;
      source =
        if template.text == null then
          template.source
        else
          "${pkgs.writeText "fairlead-template-${name}" template.text}";
      inherit (template)
        values
        destination
        owner
        group
        mode
        check
        ;
      reload-units = template.reloadUnits;
    };

  # With neither of the two, or with both.
  withoutOneSource = lib.attrNames (
    lib.filterAttrs (_: template: (template.source == null) == (template.text == null)) cfg.templates
  );

  usingACMEHost = lib.filterAttrs (_: route: route.useACMEHost != null) cfg.routes;
  acmeHosts = lib.unique (lib.mapAttrsToList (_: route: route.useACMEHost) usingACMEHost);
  acmeGroups = lib.unique (map (host: config.security.acme.certs.${host}.group) acmeHosts);
  namingBoth = lib.attrNames (lib.filterAttrs (_: route: route.provider != null) usingACMEHost);

  credentialsInStore = lib.attrNames (
    lib.filterAttrs (_: path: lib.hasPrefix builtins.storeDir path) cfg.credentials
  );

  # 443, 192.0.2.1:443 and [2001:db8::1]:443, as ListenStream= has them.
  portOf = address: lib.toInt (lib.last (lib.splitString ":" address));
  listeningAt = addresses: [ "" ] ++ addresses;

  acme = withoutNulls {
    inherit (cfg.acme) email directory;
    accept-terms = if cfg.acme.acceptTerms then true else null;
    ca-file = cfg.acme.caFile;
  };

  systemctl = lib.getExe' config.systemd.package "systemctl";
  deliver = "+${systemctl} start --no-block fairlead-watcher.service fairlead-deliver.service";

  canCheck = pkgs.stdenv.buildPlatform.canExecute pkgs.stdenv.hostPlatform;

  # The configuration directory as the programs will see it: a fault fails the build of the system.
  configuration = pkgs.runCommand "fairlead-configuration" { } ''
    mkdir -p $out/routes.d
    cp ${toml.generate "fairlead.toml" (withoutNulls cfg.settings)} $out/fairlead.toml
    cp ${toml.generate "nixos.toml" { route = routes; }} $out/routes.d/nixos.toml
    ${lib.optionalString canCheck ''
      ${lib.getExe cfg.package} check --config-dir $out --state-dir $TMPDIR --runtime-dir $TMPDIR
    ''}
  '';

  # switch-to-configuration does not look into drop-ins for a prefix.
  sandbox = ../systemd/system/fairlead-.service.d/50-sandbox.conf;

  usesAcme = route: (route.provider or cfg.settings.certificates.provider) == "acme";
  namesForAcme = lib.concatMap (route: route.hosts or [ ]) (
    lib.filter usesAcme (routes ++ cfg.settings.route or [ ])
  );
  discoversForAcme = cfg.docker.enable && cfg.settings.certificates.provider == "acme";
in
{
  options.services.fairlead = {
    enable = mkEnableOption "fairlead, which turns the containers of a Docker host into HTTPS sites";

    package = mkOption {
      type = types.package;
      defaultText = literalExpression "the package of fairlead's flake";
      description = "The package with the programs and their units.";
    };

    docker.enable = mkEnableOption "routes from the labels of the running containers";

    openFirewall = mkOption {
      type = types.bool;
      default = false;
      description = "Whether to open the TCP ports of {option}`services.fairlead.listen` in the firewall.";
    };

    listen.http = listenOption "plain HTTP" "80";
    listen.https = listenOption "HTTPS" "443";

    credentials = mkOption {
      type = types.attrsOf types.str;
      default = { };
      example = {
        tsig = "/run/secrets/tsig";
      };
      description = ''
        Files with secrets for the certs program, by the names that
        {option}`services.fairlead.settings` calls them (`LoadCredential=` in {manpage}`systemd.exec(5)`).
      '';
    };

    metrics = {
      enable = mkEnableOption "a socket at which Prometheus gets the proxy's metrics";
      address = mkOption {
        type = types.str;
        default = "127.0.0.1:9180";
        example = "10.0.0.5:9180";
        description = "Where it listens. Whoever reaches it can read the names of the certificates.";
      };
    };

    routes = mkOption {
      type = types.attrsOf routeType;
      default = { };
      example = literalExpression ''
        {
          "wiki.example.com" = {
            upstreams = [ "http://127.0.0.1:8080" ];
            aliases = [ "www.wiki.example.com" ];
            redirectToPrimary = true;
          };
        }
      '';
      description = ''
        Routes by their primary host, for what no container's label says. Keys of `[[route]]` that have
        no option here are written as they are, for instance `response-headers`.
      '';
    };

    templates = mkOption {
      type = types.attrsOf templateType;
      default = { };
      example = literalExpression ''
        {
          haproxy = {
            source = "haproxy.cfg";
            destination = "/etc/haproxy/haproxy.cfg";
            reloadUnits = [ "haproxy.service" ];
          };
        }
      '';
      description = "Files for other programs, made anew whenever containers change, by their names.";
    };

    acme = {
      acceptTerms = mkOption {
        type = types.bool;
        default = false;
        description = "Whether you have read the authority's terms of service and agree to them.";
      };
      email = mkOption {
        type = types.nullOr types.str;
        default = null;
        example = "you@example.com";
        description = "Where the authority may write to you.";
      };
      directory = mkOption {
        type = types.nullOr types.str;
        default = null;
        example = "https://acme-staging-v02.api.letsencrypt.org/directory";
        description = "URL of the ACME server's directory. Let's Encrypt when null.";
      };
      caFile = mkOption {
        type = types.nullOr types.path;
        default = null;
        description = "Roots to trust when calling the ACME server. The system's when null.";
      };
    };

    settings = mkOption {
      type = types.submodule {
        freeformType = toml.type;
        options.proxy.access-log = mkOption {
          type = types.enum [
            "off"
            "json"
            "combined"
          ];
          default = "off";
          description = "What is written of each exchange.";
        };
        options.proxy.trusted-proxies = mkOption {
          type = types.listOf types.str;
          default = [ ];
          example = [ "10.0.0.0/8" ];
          description = "Proxies before this one, whose `X-Forwarded-*` fields are believed.";
        };
        options.certificates.provider = mkOption {
          type = providerType;
          default = "acme";
          description = ''
            Who makes the certificates of routes that do not say: the ACME server (`"acme"`, or the name
            of an `authority`), this machine's own authority (`"internal"`), or nobody (`"off"`).
          '';
        };
      };
      default = { };
      example = literalExpression ''
        {
          proxy.response-timeout = "10min";
          docker.network = "web";
        }
      '';
      description = ''
        Content of {file}`/etc/fairlead/fairlead.toml`. It is checked when the system is built. Files
        that you put into {file}`/etc/fairlead/routes.d` by hand hold beside it.
      '';
    };
  };

  config = mkIf cfg.enable {
    assertions = [
      {
        assertion = namesForAcme == [ ] && !discoversForAcme || cfg.settings.acme.accept-terms or false;
        message = ''
          fairlead would ask ${cfg.settings.acme.directory or "Let's Encrypt"} for certificates (${
            lib.concatStringsSep ", " (namesForAcme ++ lib.optional discoversForAcme "every labelled container")
          }), and nobody accepted its terms of service. Read them and set
          services.fairlead.acme.acceptTerms = true, or have the machine's own authority make them:
          services.fairlead.settings.certificates.provider = "internal".'';
      }
      {
        assertion =
          cfg.docker.enable -> config.virtualisation.docker.enable || cfg.settings ? docker.socket;
        message = ''
          services.fairlead.docker.enable reads the containers of Docker, and there is no Docker. Set
          virtualisation.docker.enable = true, or name another socket, which group docker must be able
          to open: services.fairlead.settings.docker.socket.'';
      }
      {
        assertion = namingBoth == [ ];
        message = ''
          Two places say who makes the certificate of ${lib.concatStringsSep ", " namingBoth}: remove
          `provider` or `useACMEHost` of these routes in services.fairlead.routes.'';
      }
      {
        assertion = withoutOneSource == [ ];
        message = ''
          Each template is made from one thing: give ${lib.concatStringsSep ", " withoutOneSource} of
          services.fairlead.templates either `source` or `text`.'';
      }
      {
        assertion = cfg.templates != { } -> cfg.docker.enable;
        message = ''
          The program that reads the containers makes the files of services.fairlead.templates, and it
          does not run: set services.fairlead.docker.enable = true.'';
      }
      {
        assertion = credentialsInStore == [ ];
        message = ''
          Everybody on this machine can read what lies in the Nix store, and services.fairlead.credentials
          takes secrets from there: ${lib.concatStringsSep ", " credentialsInStore}. Name files outside of it, as
          sops-nix and agenix make them, such as "/run/secrets/tsig".'';
      }
    ];

    services.fairlead.settings = lib.mkMerge [
      (mkIf (acme != { }) { inherit acme; })
      (mkIf (cfg.templates != { }) { template = lib.mapAttrsToList toTemplate cfg.templates; })
    ];

    environment.systemPackages = [ cfg.package ];
    environment.etc = {
      "fairlead/fairlead.toml".source = "${configuration}/fairlead.toml";
      "fairlead/routes.d/nixos.toml".source = "${configuration}/routes.d/nixos.toml";
    };

    # As in systemd/sysusers.d, which NixOS does not read.
    users.groups = lib.genAttrs [
      "docker"
      "fairlead"
      "fairlead-certs"
      "fairlead-proxy"
      "fairlead-watcher"
    ] (_: { });
    users.users =
      lib.mapAttrs
        (name: description: {
          inherit description;
          isSystemUser = true;
          group = name;
        })
        {
          fairlead-certs = "fairlead certificates";
          fairlead-proxy = "fairlead proxy";
          fairlead-watcher = "fairlead watcher";
        };

    # The certs program copies what is renewed there; it looks as soon as there is the mark.
    security.acme.certs = lib.genAttrs acmeHosts (_: {
      postRun = "${lib.getExe' pkgs.coreutils "touch"} /run/fairlead/certs/dirty";
    });

    networking.firewall.allowedTCPPorts = mkIf cfg.openFirewall (
      lib.unique (map portOf (cfg.listen.http ++ cfg.listen.https))
    );

    # NixOS ignores [Install]: what a unit is wanted by is said again here.
    systemd = {
      packages = [ cfg.package ];
      tmpfiles.packages = [ cfg.package ];

      sockets = {
        fairlead-admin.wantedBy = [ "sockets.target" ];
        fairlead-http = {
          wantedBy = [ "sockets.target" ];
          listenStreams = mkIf (cfg.listen.http != [ "80" ]) (listeningAt cfg.listen.http);
        };
        fairlead-https = {
          wantedBy = [ "sockets.target" ];
          listenStreams = mkIf (cfg.listen.https != [ "443" ]) (listeningAt cfg.listen.https);
        };
        fairlead-metrics = mkIf cfg.metrics.enable {
          listenStreams = listeningAt [ cfg.metrics.address ];
          # By the service too: systemd starts no socket of a service that runs.
          wantedBy = [
            "sockets.target"
            "fairlead-proxy.service"
          ];
        };
      };

      paths.fairlead-certs.wantedBy = [ "multi-user.target" ];
      paths.fairlead-watcher.wantedBy = mkIf cfg.docker.enable [ "multi-user.target" ];
      paths.fairlead-deliver.wantedBy = mkIf cfg.docker.enable [ "multi-user.target" ];
      timers.fairlead-certs.wantedBy = [ "timers.target" ];
      timers.fairlead-watcher.wantedBy = mkIf cfg.docker.enable [ "timers.target" ];

      services.fairlead-proxy = {
        wantedBy = [ "multi-user.target" ];
        restartTriggers = [ sandbox ] ++ lib.optional cfg.metrics.enable cfg.metrics.address;
        # One restart, instead of a stop before and a start after the switch: that would also close
        # the sockets and refuse connections meanwhile.
        stopIfChanged = false;
      };

      # `fairlead reload` calls systemctl.
      services.fairlead-watcher.path = [ config.systemd.package ];
      # Checks are found as on the command line.
      services.fairlead-deliver.path = [
        config.systemd.package
        "/run/current-system/sw"
      ];
      services.fairlead-certs = {
        path = [ config.systemd.package ];
        # A pass that waits for the authority finishes first; the next one is the new program.
        restartIfChanged = false;
        serviceConfig = {
          LoadCredential = lib.mapAttrsToList (name: path: "${name}:${path}") cfg.credentials;
          SupplementaryGroups = acmeGroups;
        };
      };

      services.fairlead-docker-events = mkIf cfg.docker.enable {
        wantedBy = [ "multi-user.target" ];
        restartTriggers = [
          sandbox
          (builtins.toJSON cfg.settings.docker or { })
        ];
        stopIfChanged = false;
      };

      # `fairlead reload` and not reloadTriggers: a refused reload fails the switch, with the reason.
      services.fairlead-apply = {
        description = "fairlead: the configuration of this generation of the system";
        wantedBy = [ "multi-user.target" ];
        after = [ "fairlead-proxy.service" ];
        restartTriggers = [ configuration ];
        path = [ config.systemd.package ];
        serviceConfig = {
          Type = "oneshot";
          RemainAfterExit = true;
          PrivateNetwork = true;
          RestrictAddressFamilies = "AF_UNIX";
          # With full privilege and outside the sandbox: it may ask systemd for the reload.
          ExecStart = [
            "+${lib.getExe cfg.package} reload"
            # New settings may matter to the other two even if the proxy has nothing new to load.
            "+${lib.getExe' pkgs.coreutils "touch"} /run/fairlead/certs/dirty /run/fairlead/watcher/dirty"
          ]
          # What a template makes may be the same, and belong elsewhere now.
          ++ lib.optional (cfg.templates != { }) deliver;
        };
      };
    };
  };
}
