"""Boots Debian machines under systemd-nspawn and runs scripts of the NixOS test driver in them.

Read from the outside in: `runner` finds tests and reports, `machine` has the methods that the
scripts call, `container` boots and enters a machine, `tree` and `fixtures` make its files, `root`
makes the Debian below them once, and `isolation` keeps everything away from the host.
"""
