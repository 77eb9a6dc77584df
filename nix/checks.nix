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

  # What whole programs are tested against. There is no Docker in a build, and no address to
  # add for BIND: the tests of the watcher and of the DNS run under ./check.
  neighbours = [
    pkgs.curl
    pkgs.fail2ban
    pkgs.libfaketime
    pkgs.openssl
    pkgs.pebble
    pkgs.strace
  ];
  wholePrograms =
    lib.concatMap
      (name: [
        "--test"
        (lib.removeSuffix ".rs" name)
      ])
      (
        lib.filter (name: !lib.hasPrefix "watcher" name && !lib.hasPrefix "dns" name) (
          lib.attrNames (builtins.readDir ../tests/tests)
        )
      );
in
{
  package = packages.default;
  inherit (packages) options-docs;
  module = pkgs.callPackage ./module-tests.nix { inherit module; };
  clippy = cargo "fairlead-clippy" [
    pkgs.clippy
  ] "cargo clippy --workspace --all-targets --locked --offline -- --deny warnings";
  tests = cargo "fairlead-tests" neighbours ''
    cargo test --workspace --exclude fairlead-tests --locked --offline
    cargo test --package fairlead-tests --locked --offline ${lib.escapeShellArgs wholePrograms} \
      -- --skip a_container_is_a_site_as_long_as_it_runs
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
