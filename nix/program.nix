# One program, built by itself: a build of the whole workspace would unify features and give each
# program more code than it asks for. Its source is the contract and its own folder, so that a change
# to one program leaves the others, and their running services, as they are.
{
  lib,
  rustPlatform,
  member,
  # Further files that it is built from.
  sources ? [ ],
}:
let
  inherit (lib) fileset;
  workspace = lib.importTOML ../Cargo.toml;
  inherit (lib.importTOML (../src + "/${member}/Cargo.toml")) package;
in
rustPlatform.buildRustPackage {
  pname = package.name;
  inherit (workspace.workspace.package) version;

  src = fileset.toSource {
    root = ../.;
    fileset = fileset.unions (
      [
        ../Cargo.lock
        ../src/contract
        (../src + "/${member}")
        (fileset.fileFilter (file: file.name == "Cargo.toml") ../.)
        ../fuzz/targets
      ]
      ++ sources
    );
  };
  cargoLock.lockFile = ../Cargo.lock;

  # Cargo reads every member of the workspace and wants something to build in each.
  postPatch = ''
    for member in src/* tests fuzz; do
      [ -e "$member/src/main.rs" ] || [ -e "$member/src/lib.rs" ] ||
        install -D /dev/null "$member/src/lib.rs"
    done
  '';

  cargoBuildFlags = [
    "--package"
    package.name
  ];
  # The flake's checks run the tests, for all programs at once.
  doCheck = false;

  meta = {
    inherit (package) description;
    license = lib.licenses.mit;
    mainProgram = package.name;
    platforms = lib.platforms.linux;
  };
}
