# What can be said of one installation: `services.fairlead`, and each of its `instances`.
{ lib, pkgs }:
let
  inherit (lib)
    literalExpression
    mkEnableOption
    mkIf
    mkOption
    types
    ;
  toml = pkgs.formats.toml { };

  # What need not be said.
  mkNullable =
    type: words:
    mkOption (
      words
      // {
        type = types.nullOr type;
        default = null;
      }
    );

  routeType = types.submodule {
    freeformType = toml.type;
    options = {
      upstreams = mkNullable (types.nonEmptyListOf (types.either types.str (types.attrsOf toml.type))) {
        example = [
          "http://127.0.0.1:8080"
          {
            url = "http://10.0.0.6:8080";
            weight = 3;
          }
        ];
        description = ''
          URLs of the upstreams that answer for the route, or sets that say more of one. They share the load.
          Only a route with `redirect` needs none.
        '';
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
      useACMEHost = mkNullable types.str {
        example = "example.com";
        description = ''
          Name of a certificate of {option}`security.acme.certs` that the route shows, instead of one that
          fairlead orders.
        '';
      };
      provider = mkNullable providerType {
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
      source = mkNullable (types.either types.path types.str) {
        example = "haproxy.cfg";
        description = "The file to make it from, or the name of a template that comes with fairlead.";
      };
      text = mkNullable types.lines {
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
      owner = mkNullable types.str {
        description = "The user whose file it is. Root's when null.";
      };
      group = mkNullable types.str {
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
        example = literalExpression ''[ (lib.getExe pkgs.haproxy) "-c" "-f" "{}" ]'';
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

  toAcme =
    acme:
    withoutNulls {
      inherit (acme) email directory;
      accept-terms = if acme.acceptTerms then true else null;
      ca-file = acme.caFile;
    };

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
in
{
  options = {
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
      email = mkNullable types.str {
        example = "you@example.com";
        description = "Where the authority may write to you.";
      };
      directory = mkNullable types.str {
        example = "https://acme-staging-v02.api.letsencrypt.org/directory";
        description = "URL of the ACME server's directory. Let's Encrypt when null.";
      };
      caFile = mkNullable types.path {
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

  # What the options above mean in `settings`.
  settings =
    cfg:
    lib.mkMerge [
      (mkIf (toAcme cfg.acme != { }) { acme = toAcme cfg.acme; })
      (mkIf (cfg.templates != { }) { template = lib.mapAttrsToList toTemplate cfg.templates; })
    ];
}
