# What `nix flake check` runs beside the builds.
{
  pkgs,
  packages,
  module,
}:
let
  inherit (pkgs) lib;

  # A command over the whole workspace, with the crates of Cargo.lock and without a network.
  cargo =
    name: tools: command:
    pkgs.rustPlatform.buildRustPackage {
      inherit name;
      src = lib.cleanSource ../.;
      cargoLock.lockFile = ../Cargo.lock;
      nativeBuildInputs = tools;
      buildPhase = ''
        runHook preBuild
        ${command}
        runHook postBuild
      '';
      doCheck = false;
      installPhase = "touch $out";
    };

  over =
    name: tools: command:
    pkgs.runCommand name { nativeBuildInputs = tools; } ''
      cd ${lib.cleanSource ../.}
      ${command}
      touch $out
    '';

  # What whole programs are tested against.
  neighbours = [
    pkgs.curl
    pkgs.fail2ban
    pkgs.haproxy
    pkgs.libfaketime
    pkgs.openssl
    pkgs.pebble
    pkgs.python3
    pkgs.strace
  ];
  # ./check runs these too. In a build there is no Docker, no address can be added for BIND, and nothing be
  # mounted or given to another user.
  isForBuilds =
    name: !lib.hasPrefix "watcher" name && !lib.hasPrefix "dns" name && name != "certs_preflight.rs";
  notForBuilds = [
    "a_container_is_a_site_as_long_as_it_runs"
    "a_full_disk_leaves_the_present_pair"
    "a_certificate_is_copied_with_owner_and_mode"
    "a_stranger::is_told_how_to_be_let_in"
    "what_cannot_be_done_is_said_and_nothing_changes"
  ];
  wholePrograms = lib.concatMap (name: [
    "--test"
    (lib.removeSuffix ".rs" name)
  ]) (lib.filter isForBuilds (lib.attrNames (builtins.readDir ../tests/tests)));
  skipped = lib.concatMap (test: [
    "--skip"
    test
  ]) notForBuilds;
in
{
  package = packages.default;
  inherit (packages) options-docs;
  module = pkgs.callPackage ./module-tests.nix { inherit module; };
  # The package's units say what the shipped ones say, but for where the programs are.
  units = pkgs.runCommand "fairlead-units" { } ''
    cp -r --no-preserve=mode ${packages.default}/lib/systemd/system units
    sed -i 's|/nix/store/[^ ]*/bin/|/usr/bin/|' units/*.service
    diff --recursive ${../systemd/system} units
    touch $out
  '';
  clippy = cargo "fairlead-clippy" [
    pkgs.clippy
  ] "cargo clippy --workspace --all-targets --locked --offline -- --deny warnings";
  tests = cargo "fairlead-tests" neighbours ''
    cargo test --workspace --exclude fairlead-tests --locked --offline
    cargo test --package fairlead-tests --locked --offline ${lib.escapeShellArgs wholePrograms} \
      -- ${lib.escapeShellArgs skipped}
  '';
  crate-graph = cargo "fairlead-crate-graph" [
    pkgs.cargo-deny
  ] "cargo deny --offline check bans licenses sources";
  fmt = over "fairlead-fmt" [
    pkgs.cargo
    pkgs.rustfmt
  ] "cargo fmt --all --check";
  nixfmt = over "fairlead-nixfmt" [ pkgs.nixfmt ] "nixfmt --check flake.nix nix/*.nix";
}
// {
  vm-switch = import ./switch-test.nix { inherit pkgs module; };
}
// import ./vm-tests.nix { inherit lib pkgs module; }
