# What one installation is on the system: its files, users and units, and what is impossible of it.
{
  lib,
  pkgs,
  # Of the whole system.
  config,
  package,
  # What was said of this installation, and which option said it.
  cfg,
  option,
  # What its units, users and directories are called: fairlead, or fairlead-NAME.
  name,
}:
let
  inherit (lib) mkIf;
  toml = pkgs.formats.toml { };
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

  # With neither of the two, or with both.
  withoutOneSource = lib.attrNames (
    lib.filterAttrs (_: template: (template.source == null) == (template.text == null)) cfg.templates
  );

  usingACMEHost = lib.filterAttrs (_: route: route.useACMEHost != null) cfg.routes;
  acmeHosts = lib.unique (lib.mapAttrsToList (_: route: route.useACMEHost) usingACMEHost);
  acmeGroups = lib.unique (map (host: config.security.acme.certs.${host}.group) acmeHosts);
  sayingHosts = lib.attrNames (lib.filterAttrs (_: route: route ? hosts) cfg.routes);
  namingBoth = lib.attrNames (lib.filterAttrs (_: route: route.provider != null) usingACMEHost);

  credentialsInStore = lib.attrNames (
    lib.filterAttrs (_: path: lib.hasPrefix builtins.storeDir path) cfg.credentials
  );

  # 443, 192.0.2.1:443 and [2001:db8::1]:443, as ListenStream= has them.
  listener =
    key: address:
    let
      port = lib.last (lib.splitString ":" address);
    in
    {
      inherit address;
      option = "${option}.${key}";
      port = lib.toInt port;
      host = lib.removeSuffix ":" (lib.removeSuffix port address);
    };
  forClients =
    map (listener "listen.http") cfg.listen.http ++ map (listener "listen.https") cfg.listen.https;
  listeningAt = addresses: [ "" ] ++ addresses;

  # NixOS gives Podman's socket to a group of its own.
  socketGroups = lib.optional (
    config.virtualisation.podman.enable && cfg.settings ? docker.socket
  ) "podman";

  systemctl = lib.getExe' config.systemd.package "systemctl";
  deliver = "+${systemctl} start --no-block ${name}-watcher.service ${name}-deliver.service";

  canCheck = pkgs.stdenv.buildPlatform.canExecute pkgs.stdenv.hostPlatform;

  files = {
    "fairlead.toml" = withoutNulls cfg.settings;
    "routes.d/nixos.toml".route = routes;
  };
  copyFile = file: value: "cp ${toml.generate (baseNameOf file) value} $out/${file}\n";

  # The configuration directory as the programs will see it: a fault fails the build of the system.
  configuration = pkgs.runCommand "${name}-configuration" { passthru = { inherit files; }; } ''
    mkdir -p $out/routes.d
    ${lib.concatStrings (lib.mapAttrsToList copyFile files)}
    ${lib.optionalString canCheck ''
      ${lib.getExe package} check --config-dir $out --state-dir $TMPDIR --runtime-dir $TMPDIR
    ''}
  '';

  # switch-to-configuration does not look into drop-ins for a prefix.
  sandbox = ../systemd/system/fairlead-.service.d/50-sandbox.conf;

  authorities = {
    acme = cfg.settings.acme or { };
  }
  // cfg.settings.authority or { };

  # For which names an authority is to make certificates.
  namesFor =
    authority:
    lib.concatMap (route: route.hosts or [ ]) (
      lib.filter (route: (route.provider or cfg.settings.certificates.provider) == authority) (
        routes ++ cfg.settings.route or [ ]
      )
    )
    ++ lib.optional (
      cfg.docker.enable && cfg.settings.certificates.provider == authority
    ) "every labelled container";

  # And for which it stands in.
  namesInNeed =
    name:
    lib.concatMap namesFor (
      lib.attrNames (lib.filterAttrs (_: authority: lib.elem name authority.fallback or [ ]) authorities)
    );

  termsAreAccepted =
    name: authority:
    let
      names = lib.unique (namesFor name ++ namesInNeed name);
      called = if name == "acme" then "Let's Encrypt" else name;
      consent = if name == "acme" then "acme.acceptTerms" else "settings.authority.${name}.accept-terms";
    in
    {
      assertion = names == [ ] || authority.accept-terms or false;
      message = ''
        fairlead would ask ${authority.directory or called} for certificates (${lib.concatStringsSep ", " names}),
        and nobody accepted its terms of service. Read them and set ${option}.${consent} = true, or have the
        machine's own authority make them: ${option}.settings.certificates.provider = "internal".'';
    };
in
{
  inherit option;
  discovers = cfg.docker.enable;
  tag = cfg.settings.docker.proxytag or "";
  listeners =
    forClients ++ lib.optional cfg.metrics.enable (listener "metrics.address" cfg.metrics.address);
  openPorts = lib.optionals cfg.openFirewall (map (listener: listener.port) forClients);

  assertions = lib.mapAttrsToList termsAreAccepted authorities ++ [
    {
      assertion =
        cfg.docker.enable -> config.virtualisation.docker.enable || cfg.settings ? docker.socket;
      message = ''
        ${option}.docker.enable reads the containers of Docker, and there is no Docker. Set
        virtualisation.docker.enable = true, or name another socket, Podman's ("/run/podman/podman.sock", with
        virtualisation.podman.enable) or one that group docker can open: ${option}.settings.docker.socket.'';
    }
    {
      assertion = namingBoth == [ ];
      message = ''
        Two places say who makes the certificate of ${lib.concatStringsSep ", " namingBoth}: remove
        `provider` or `useACMEHost` of these routes in ${option}.routes.'';
    }
    {
      assertion = sayingHosts == [ ];
      message = ''
        The name of a route in ${option}.routes is its primary host, and `hosts` is said in
        ${lib.concatStringsSep ", " sayingHosts}: name it so and put the others into `aliases`. Further routes of
        one host, with another `path`, are tables in ${option}.settings.route.'';
    }
    {
      assertion = withoutOneSource == [ ];
      message = ''
        Each template is made from one thing: give ${lib.concatStringsSep ", " withoutOneSource} of
        ${option}.templates either `source` or `text`.'';
    }
    {
      assertion = cfg.templates != { } -> cfg.docker.enable;
      message = ''
        The program that reads the containers makes the files of ${option}.templates, and it
        does not run: set ${option}.docker.enable = true.'';
    }
    {
      assertion = credentialsInStore == [ ];
      message = ''
        Everybody on this machine can read what lies in the Nix store, and ${option}.credentials
        takes secrets from there: ${lib.concatStringsSep ", " credentialsInStore}. Name files outside of it, as
        sops-nix and agenix make them, such as "/run/secrets/tsig".'';
    }
  ];

  etc = lib.mapAttrs' (
    file: _: lib.nameValuePair "${name}/${file}" { source = "${configuration}/${file}"; }
  ) files;

  groups = [
    name
    "${name}-certs"
    "${name}-proxy"
    "${name}-watcher"
  ];
  users =
    lib.mapAttrs
      (group: description: {
        inherit description group;
        isSystemUser = true;
      })
      {
        "${name}-certs" = "${name} certificates";
        "${name}-proxy" = "${name} proxy";
        "${name}-watcher" = "${name} watcher";
      };

  # The certs program copies what is renewed there; it looks as soon as there is the mark.
  acmeCerts = lib.genAttrs acmeHosts (_: {
    postRun = "${lib.getExe' pkgs.coreutils "touch"} /run/${name}/certs/dirty";
  });

  # NixOS ignores [Install]: what a unit is wanted by is said again here.
  systemd = {
    sockets = {
      "${name}-admin".wantedBy = [ "sockets.target" ];
      "${name}-reload".wantedBy = [ "sockets.target" ];
      "${name}-http" = {
        wantedBy = [ "sockets.target" ];
        listenStreams = mkIf (cfg.listen.http != [ "80" ]) (listeningAt cfg.listen.http);
      };
      "${name}-https" = {
        wantedBy = [ "sockets.target" ];
        listenStreams = mkIf (cfg.listen.https != [ "443" ]) (listeningAt cfg.listen.https);
      };
      "${name}-metrics" = mkIf cfg.metrics.enable {
        listenStreams = listeningAt [ cfg.metrics.address ];
        # By the service too: systemd starts no socket of a service that runs.
        wantedBy = [
          "sockets.target"
          "${name}-proxy.service"
        ];
      };
    };

    paths."${name}-certs".wantedBy = [ "multi-user.target" ];
    paths."${name}-watcher".wantedBy = mkIf cfg.docker.enable [ "multi-user.target" ];
    paths."${name}-deliver".wantedBy = [ "multi-user.target" ];
    timers."${name}-certs".wantedBy = [ "timers.target" ];
    timers."${name}-watcher".wantedBy = mkIf cfg.docker.enable [ "timers.target" ];

    services."${name}-proxy" = {
      wantedBy = [ "multi-user.target" ];
      restartTriggers = [ sandbox ] ++ lib.optional cfg.metrics.enable cfg.metrics.address;
      # One restart, instead of a stop before and a start after the switch: that would also close
      # the sockets and refuse connections meanwhile.
      stopIfChanged = false;
    };

    # Checks are found as on the command line.
    services."${name}-deliver".path = [
      config.systemd.package
      "/run/current-system/sw"
    ];
    services."${name}-certs" = {
      path = [ config.systemd.package ];
      # A pass that waits for the authority finishes first; the next one is the new program.
      restartIfChanged = false;
      serviceConfig = {
        LoadCredential = lib.mapAttrsToList (name: path: "${name}:${path}") cfg.credentials;
        SupplementaryGroups = acmeGroups;
      };
    };

    services."${name}-watcher".serviceConfig = mkIf (socketGroups != [ ]) {
      SupplementaryGroups = socketGroups;
    };
    services."${name}-docker-events" = mkIf cfg.docker.enable {
      serviceConfig = mkIf (socketGroups != [ ]) { SupplementaryGroups = socketGroups; };
      wantedBy = [ "multi-user.target" ];
      restartTriggers = [
        sandbox
        (builtins.toJSON cfg.settings.docker or { })
      ];
      stopIfChanged = false;
    };

    # `fairlead reload` and not reloadTriggers: a refused reload fails the switch, with the reason.
    services."${name}-apply" = {
      description = "${name}: the configuration of this generation of the system";
      wantedBy = [ "multi-user.target" ];
      after = [ "${name}-proxy.service" ];
      restartTriggers = [ configuration ];
      path = [ config.systemd.package ];
      serviceConfig = {
        Type = "oneshot";
        RemainAfterExit = true;
        PrivateNetwork = true;
        RestrictAddressFamilies = "AF_UNIX";
        # With full privilege and outside the sandbox: it may ask systemd for the reload.
        ExecStart = [
          "+${lib.getExe package} reload"
          # New settings may matter to the other two even if the proxy has nothing new to load.
          "+${lib.getExe' pkgs.coreutils "touch"} /run/${name}/certs/dirty /run/${name}/watcher/dirty"
        ]
        # What a template makes may be the same, and belong elsewhere now.
        ++ lib.optional (cfg.templates != { }) deliver
        ++ lib.optional (
          (cfg.settings.certificates.copy or [ ]) != [ ]
        ) "+${systemctl} start --no-block ${name}-deliver.service";
      };
    };
  };
}
