# SPDX-License-Identifier: GPL-3.0-or-later
"""What can be done to the lab from a shell, and by the playbooks of molecule/hosts.

up      start machines, NAME=bookworm@10.213.0.11, NAME=trixie@… or NAME=ceph@…, for a user of them
down    remove a user's machines that nobody else uses, or those that are named, or all
list    what there is
off     power machines off, or cut their power with --cut
on      start machines that are off; what they wrote is still there
unplug  pull the network cable out of machines
plug    put it back
shell   log in to a host
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from . import network
from .lab import HOME, Lab
from .machines import Machine
from .network import LabError


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.tools.lab", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    up = verbs.add_parser("up")
    up.add_argument("machines", nargs="+", metavar="NAME=KIND@ADDRESS")
    up.add_argument("--for", dest="user", default="shell", metavar="USER")
    down = verbs.add_parser("down")
    down.add_argument("names", nargs="*", metavar="NAME")
    down.add_argument("--for", dest="user", default="", metavar="USER")
    verbs.add_parser("list")
    off = verbs.add_parser("off")
    off.add_argument("--cut", action="store_true")
    for one in (off, verbs.add_parser("on"), verbs.add_parser("unplug"), verbs.add_parser("plug")):
        one.add_argument("names", nargs="+", metavar="NAME")
    shell = verbs.add_parser("shell")
    shell.add_argument("names", nargs=1, metavar="NAME")
    shell.add_argument("words", nargs=argparse.REMAINDER, metavar="WORD")
    return parser


def _wanted(word: str) -> tuple[str, str, str]:
    name, _equals, rest = word.partition("=")
    kind, _at, address = rest.partition("@")
    if not (name and kind and address):
        raise LabError(f"{word!r} is not NAME=KIND@ADDRESS")
    return name, kind, address


def _change(verb: str, machines: Sequence[Machine], *, cut: bool) -> None:
    for machine in machines:
        if verb == "off":
            machine.stop(cut=cut)
        elif verb == "on":
            machine.start()
        else:
            network.plug(machine.name, into=verb == "plug")
    if verb == "on":
        for machine in machines:
            machine.wait()


def _run(options: argparse.Namespace) -> None:
    lab = Lab()
    if options.verb == "up":
        new = lab.up([_wanted(word) for word in options.machines], options.user)
        print("\n".join(f"new: {name}" for name in new))
    elif options.verb == "down":
        gone = lab.down(options.user, options.names)
        print("\n".join(f"gone: {name}" for name in gone))
    elif options.verb == "list":
        for machine in lab.machines():
            facts = machine.facts
            state = "on" if machine.is_on() else "off"
            print(f"{facts.name:10}  {facts.kind:8}  {facts.address:13}  {state:3}  {', '.join(facts.users)}")
    elif options.verb == "shell":
        words = ["ssh", "-F", str(HOME / "ssh_config"), lab.machine(options.names[0]).name, *options.words]
        os.execvp("ssh", words)  # noqa: S606 - the shell takes our place
    else:
        machines = [lab.machine(name) for name in options.names]
        _change(options.verb, machines, cut=getattr(options, "cut", False))


def main() -> int:
    """Do what the command line asks for."""
    try:
        _run(_parser().parse_args())
    except LabError as problem:
        print(problem, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
