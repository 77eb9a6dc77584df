# The four programs and what systemd needs to know about them.
{
  lib,
  buildPackages,
  callPackage,
  stdenvNoCC,
  # The names of further installations on the same machine, whose units come along.
  instances ? [ ],
}:
let
  build = member: callPackage ./program.nix { inherit member; };
  programs = {
    fairlead-proxy = build "proxy";
    fairlead-watcher = build "watcher";
    fairlead-certs = callPackage ./program.nix {
      member = "certs";
      sources = [ ../src/dns-services ];
    };
    fairlead-cli = build "cli";
  };
  # Runs where the package is built.
  manual = buildPackages.callPackage ./program.nix {
    member = "manual";
    sources = [
      ../docs
      (lib.fileset.fileFilter (file: file.name == "arguments.rs") ../src)
    ];
  };
  services = lib.attrNames (removeAttrs programs [ "fairlead-cli" ]);
in
stdenvNoCC.mkDerivation {
  pname = "fairlead";
  inherit (programs.fairlead-cli) version;

  src = ../systemd;
  dontConfigure = true;
  dontBuild = true;

  # The units name each program where it was built, so that a unit changes only with its program.
  # The command line is copied: it looks for the others beside itself.
  installPhase = ''
    runHook preInstall
    mkdir -p $out/bin $out/lib/systemd
    cp -r system $out/lib/systemd/
    cp -r sysusers.d tmpfiles.d $out/lib/
    for instance in ${lib.escapeShellArgs instances}; do
      sh ./instance "$instance" further
    done
    ${lib.optionalString (instances != [ ]) ''
      cp -r further/system/. $out/lib/systemd/system/
      cp -r further/sysusers.d further/tmpfiles.d $out/lib/
      cp further/bin/* $out/bin/
      substituteInPlace $out/bin/* --replace-fail /usr/bin/fairlead $out/bin/fairlead
    ''}
    ${lib.getExe manual} $out/share
    mkdir $out/share/doc
    cp -r --no-preserve=mode ${../docs} $out/share/doc/fairlead
    cp ${lib.getExe programs.fairlead-cli} $out/bin/fairlead
    ${lib.concatMapStrings (name: ''
      ln -s ${lib.getExe programs.${name}} $out/bin/
      substituteInPlace $out/lib/systemd/system/*.service \
        --replace-quiet /usr/bin/${name} ${lib.getExe programs.${name}}
    '') services}
    substituteInPlace $out/lib/systemd/system/*.service \
      --replace-quiet "/usr/bin/fairlead " "$out/bin/fairlead "
    if grep -rn /usr/bin $out/lib; then
      echo "these units name programs that are not in the package" >&2
      exit 1
    fi
    runHook postInstall
  '';

  passthru = { inherit programs; };

  meta = {
    description = "Turns the containers of a Docker host into HTTPS sites";
    license = lib.licenses.mit;
    mainProgram = "fairlead";
    platforms = lib.platforms.linux;
  };
}
