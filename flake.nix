{
  description = "Turns the containers of a Docker host into HTTPS sites";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";

  outputs =
    { self, nixpkgs }:
    let
      systems = [
        "x86_64-linux"
        "aarch64-linux"
      ];
      forSystems = choose: nixpkgs.lib.genAttrs systems (system: choose nixpkgs.legacyPackages.${system});
      packagesFor = pkgs: self.packages.${pkgs.stdenv.hostPlatform.system};
    in
    {
      packages = forSystems (
        pkgs:
        let
          fairlead = pkgs.callPackage ./nix/package.nix { };
        in
        fairlead.programs
        // {
          inherit fairlead;
          default = fairlead;
          options-docs = pkgs.callPackage ./nix/options-docs.nix { };
        }
      );

      overlays.default = final: _: { fairlead = final.callPackage ./nix/package.nix { }; };

      nixosModules.default =
        { lib, pkgs, ... }:
        {
          key = "fairlead";
          imports = [ ./nix/module.nix ];
          services.fairlead.package = lib.mkDefault (packagesFor pkgs).default;
        };

      checks = forSystems (
        pkgs:
        import ./nix/checks.nix {
          inherit pkgs;
          packages = packagesFor pkgs;
          module = self.nixosModules.default;
        }
      );

      devShells = forSystems (pkgs: {
        default = pkgs.callPackage ./nix/shell.nix { fairlead = (packagesFor pkgs).default; };
      });

      apps = forSystems (pkgs: {
        default = import ./nix/dev.nix {
          inherit pkgs;
          fairlead = (packagesFor pkgs).default;
        };
      });

      formatter = forSystems (pkgs: pkgs.nixfmt-tree);
    };
}
