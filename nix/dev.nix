# `nix run`: the newcomer's first minute.
{ pkgs, fairlead }:
{
  type = "app";
  program = toString (
    pkgs.writeShellScript "fairlead-dev" ''
      exec ${pkgs.lib.getExe fairlead} dev "$@"
    ''
  );
  meta.description = "All of fairlead on loopback ports, without root and without systemd";
}
