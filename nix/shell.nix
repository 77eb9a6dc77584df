# What the tests and their neighbours need, beside what builds the programs.
{
  mkShell,
  fairlead,
  cargo-deny,
  cargo-fuzz,
  clippy,
  curl,
  libfaketime,
  mypy,
  nixfmt,
  openssl,
  pebble,
  python3Packages,
  rust-analyzer,
  rustfmt,
  shellcheck,
  strace,
}:
mkShell {
  inputsFrom = builtins.attrValues fairlead.programs;
  packages = [
    cargo-deny
    cargo-fuzz
    clippy
    curl
    libfaketime
    mypy
    nixfmt
    openssl
    pebble
    python3Packages.pyflakes
    rust-analyzer
    rustfmt
    shellcheck
    strace
  ];
}
