# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The answers to shell completion that only the places can give, by the hidden `pgops _complete sets|databases`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from ..context import Context
from ..places.catalog import Catalog
from ..system.account import become_owner
from .invocation import host_name, load_config

_NEWEST = 30


def answer(arguments: Sequence[str]) -> int:
    """Print the set ids or database names that are asked for. Whatever goes wrong: print nothing, return 1."""
    try:
        parser = argparse.ArgumentParser(prog="pgops _complete", add_help=False)
        parser.add_argument("what", choices=("sets", "databases"))
        parser.add_argument("-c", "--config", default="")
        parser.add_argument("--place", default="auto")
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - for the rest of this short process
        options = parser.parse_args(list(arguments))
        options.overrides = []
        sets, databases = _known(options)
        names = sets if options.what == "sets" else sorted(databases)
        sys.stdout.write("".join("%s\n" % name for name in names if "\n" not in name))
        sys.stdout.flush()
    except (Exception, SystemExit, KeyboardInterrupt):  # noqa: BLE001 - a person who presses Tab wants no message
        return 1
    return 0


def _known(options: argparse.Namespace) -> tuple[list[str], set[str]]:
    """Return the newest sets and their databases; of the local place, unless S3 is named or the local one is empty."""
    config = load_config(options)
    become_owner(config)
    context = Context(config, host_name())
    catalog = Catalog(context.place("s3" if options.place == "s3" else "local"))
    if not catalog.ids() and options.place == "auto" and config.s3 is not None:
        catalog = Catalog(context.s3())
    sets = catalog.ids()[:_NEWEST]
    databases: set[str] = set()
    if options.what == "databases":
        for set_id in sets[:3]:
            databases.update(database.name for database in catalog.manifest(set_id).databases)
    return sets, databases


__all__ = ("answer",)
