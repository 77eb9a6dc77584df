# The reference of `services.fairlead`. An option without a description fails the build.
{ lib, pkgs }:
let
  evaluated = lib.evalModules {
    modules = [
      ./module.nix
      {
        # The rest of NixOS is not there, and nothing of it is asked for.
        _module.check = false;
        _module.args = { inherit pkgs; };
      }
    ];
  };
  withoutStorePath = option: option // { declarations = [ ]; };
in
(pkgs.nixosOptionsDoc {
  options = { inherit (evaluated.options) services; };
  transformOptions = withoutStorePath;
}).optionsCommonMark
