"""The command line: finds the tests, runs each in a fresh machine, says how many passed."""

import argparse
import functools
import os
import signal
import sys
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path

from lab.fixtures import PROJECT, NotInstalled, install_fairlead, install_neighbours
from lab.isolation import end_orphans, isolate
from lab.machine import Machine
from lab.root import cached_root
from lab.script import Report, Script, release_of
from lab.tree import Tree, fresh_tree

TESTS = PROJECT / "vm-tests"
JOURNAL = "journalctl --no-pager --quiet --output=short-monotonic --lines=40"


def main() -> int:
    """Runs the tests that the command line asks for and returns the exit status."""
    arguments = _parse()
    if os.geteuid() != 0:
        sys.exit("vm-tests/run: it boots machines, which needs root")
    for termination in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(termination, lambda number, _: sys.exit(128 + number))
    isolate()
    end_orphans()
    roots = {test: cached_root(release_of(test)) for test in arguments.tests}

    def run(test: Path, report: Report) -> Report:
        _run(test, roots[test], arguments, report)
        return report

    reports: Iterator[Report]
    if arguments.keep or arguments.interactive or arguments.at_once == 1:
        reports = (run(test, Report(functools.partial(print, flush=True))) for test in arguments.tests)
    else:
        reports = _at_once(arguments.at_once, arguments.tests, run)
    counts = [(report.passed, report.failed) for report in reports]
    passed, failed = map(sum, zip(*counts))
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


def _at_once(limit: int, tests: list[Path], run: Callable[[Path, Report], Report]) -> Iterator[Report]:
    """Runs each test in a process of its own, so many at once, and prints what it said when it has ended."""
    context = get_context("fork")
    waiting = list(tests)
    running: dict[Connection, Path] = {}

    def start(test: Path) -> None:
        receiver, sender = context.Pipe(duplex=False)
        # A daemon: it is told to end when this process does.
        context.Process(target=_told, args=(sender, test, run), daemon=True).start()
        sender.close()
        running[receiver] = test

    while waiting or running:
        while waiting and len(running) < limit:
            start(waiting.pop(0))
        for receiver in wait(list(running)):
            assert isinstance(receiver, Connection)
            yield _received(receiver, running.pop(receiver))


def _told(sender: Connection, test: Path, run: Callable[[Path, Report], Report]) -> None:
    lines: list[str] = []
    report = run(test, Report(lines.append))
    sender.send((lines, report.passed, report.failed))


def _received(receiver: Connection, test: Path) -> Report:
    report = Report(functools.partial(print, flush=True))
    try:
        lines, report.passed, report.failed = receiver.recv()
        print(*lines, sep="\n", flush=True)
    except EOFError:
        report.fail(test.stem, "its process ended before it could say why")
    return report


def _parse() -> argparse.Namespace:
    found = {path.stem: path for path in sorted([*TESTS.glob("*.py"), *TESTS.glob("debian/*.py")])}
    parser = argparse.ArgumentParser(prog="vm-tests/run", description=__doc__)
    parser.add_argument("names", metavar="NAME", nargs="*", help="; ".join(found) + " (default: all)")
    parser.add_argument(
        "--bin-dir",
        metavar="DIR",
        type=Path,
        default=PROJECT / "target/release",
        help="where the built programs are (default: target/release)",
    )
    parser.add_argument(
        "--at-once",
        metavar="N",
        type=int,
        default=len(os.sched_getaffinity(0)),
        help="how many machines run at the same time (default: one for each processor)",
    )
    parser.add_argument("--keep", action="store_true", help="open a shell in a machine that failed")
    parser.add_argument(
        "--interactive", action="store_true", help="open a shell in each machine after its test"
    )
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in found]
    if unknown:
        parser.error(f"no such test: {', '.join(unknown)}")
    arguments.tests = [found[name] for name in arguments.names or found]
    return arguments


def _run(test: Path, root: Path, arguments: argparse.Namespace, report: Report) -> None:
    """Runs one test in a machine that exists only for it."""
    with fresh_tree(root) as tree:
        tree.show(PROJECT, "usr/src/fairlead")
        tree.show(arguments.bin_dir, "usr/src/fairlead-programs")
        _furnish(tree, arguments.bin_dir, report)
        machine = Machine(tree, report.say)
        try:
            passed = Script(test, machine, report).run()
            if not passed and machine.is_up:
                report.say(f"--- the end of the journal ---\n{machine.execute(JOURNAL)[1]}")
            if arguments.interactive or (arguments.keep and not passed):
                machine.shell_interact()
        finally:
            machine.crash()


def _furnish(tree: Tree, programs: Path, report: Report) -> None:
    """Installs what the machine has beyond Debian. The driver's own test needs no fairlead."""
    install_neighbours(tree.root)
    try:
        install_fairlead(tree.root, programs)
    except NotInstalled as error:
        report.say(f"the machine is without fairlead: {error}")
