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
    mkMerge
    mkOption
    types
    ;
  cfg = config.services.fairlead;
  installation = import ./options.nix { inherit lib pkgs; };

  package =
    if cfg.instances == { } then
      cfg.package
    else
      cfg.package.override { instances = lib.attrNames cfg.instances; };

  installationOf =
    name: option: cfg:
    import ./installation.nix {
      inherit
        lib
        pkgs
        config
        package
        name
        option
        cfg
        ;
    };
  installations = [
    (installationOf "fairlead" "services.fairlead" cfg)
  ]
  ++ lib.mapAttrsToList (
    name: installationOf "fairlead-${name}" "services.fairlead.instances.${name}"
  ) cfg.instances;
  each = part: map (made: made.${part}) installations;
  all = part: lib.concatLists (each part);

  # As systemd/instance refuses them.
  wrongNames = lib.filter (
    name:
    builtins.match "[a-z0-9]{1,13}" name == null
    || lib.elem name [
      "proxy"
      "watcher"
      "certs"
      "docker"
    ]
  ) (lib.attrNames cfg.instances);

  # Whether who listens at the first address has what comes for the second.
  takes =
    a: b:
    a.port == b.port
    && (
      lib.elem a.host [
        ""
        "[::]"
        b.host
      ]
      || a.host == "0.0.0.0" && !lib.hasPrefix "[" b.host
    );
  listeners = all "listeners";
  taken = lib.filter (a: lib.any (b: a.option != b.option && takes a b) listeners) listeners;

  sayListeners = lib.concatMapStringsSep ", " (listener: "${listener.option} = ${listener.address}");

  discovering = lib.filter (made: made.discovers) installations;
  sayOptions = lib.concatMapStringsSep ", " (made: made.option);
in
{
  options.services.fairlead = {
    enable = mkEnableOption "fairlead, which turns the containers of a Docker host into HTTPS sites";

    package = mkOption {
      type = types.package;
      defaultText = literalExpression "the package of fairlead's flake";
      description = "The package with the programs and their units.";
    };

    instances = mkOption {
      type = types.attrsOf (
        types.submodule (
          { config, ... }:
          {
            inherit (installation) options;
            config.settings = installation.settings config;
          }
        )
      );
      default = { };
      visible = "shallow";
      example = literalExpression ''
        {
          internal = {
            listen.http = [ "10.0.0.5:80" ];
            listen.https = [ "10.0.0.5:443" ];
            settings.certificates.provider = "internal";
            routes."wiki.internal".upstreams = [ "http://127.0.0.1:8080" ];
          };
        }
      '';
      description = ''
        Further installations on this machine, by name, each with all options of `services.fairlead` but
        `enable`, `package` and `instances`. Their units are called `fairlead-NAME-...`, their users,
        directories and command `fairlead-NAME`.
      '';
    };
  }
  // installation.options;

  config = mkIf cfg.enable {
    services.fairlead.settings = installation.settings cfg;

    assertions = all "assertions" ++ [
      {
        assertion = wrongNames == [ ];
        message = ''
          These names cannot be those of instances: ${lib.concatStringsSep ", " wrongNames}. In
          services.fairlead.instances, use up to 13 small letters and digits, and not proxy, watcher, certs or docker.'';
      }
      {
        assertion = taken == [ ];
        message = ''
          Two installations of fairlead listen at the same place: ${sayListeners taken}.
          Give each addresses of its own, such as listen.https = [ "192.0.2.1:443" ].'';
      }
      {
        assertion = lib.allUnique (map (made: made.tag) discovering);
        message = ''
          Several installations of fairlead would serve the same containers: ${sayOptions discovering}.
          Give all but one of them a tag that its containers have, settings.docker.proxytag.'';
      }
    ];

    environment.systemPackages = [ package ];
    environment.etc = mkMerge (each "etc");

    # As in systemd/sysusers.d, which NixOS does not read.
    users.groups = lib.genAttrs ([ "docker" ] ++ all "groups") (_: { });
    users.users = mkMerge (each "users");

    security.acme.certs = mkMerge (each "acmeCerts");
    networking.firewall.allowedTCPPorts = lib.unique (all "openPorts");

    systemd = mkMerge (
      [
        {
          packages = [ package ];
          tmpfiles.packages = [ package ];
        }
      ]
      ++ each "systemd"
    );
  };
}
