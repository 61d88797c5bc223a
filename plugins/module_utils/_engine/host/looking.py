# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Whether a part of a host is as somebody wants it, and how safe its instances are, found out without touching anything."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Callable

from ..core.errors import PgopsError, RefusedError, UsageError
from ..system.runner import Command
from .changes import Host

_SECONDS = 600.0


def lacks(host: Host, part: Callable[[Host], bool]) -> bool:
    """Tell whether there is something to do about a `part` of the host; what it warns of is passed on when there is not.

    The part is handed a host that it only looks at, and returns whether it would change something. What would be an error
    without check mode is something to do. Raise what the part raises.
    """
    looking = Host(dry_run=True, clock=host.clock, runner=host.runner)
    if part(looking) or looking.excused:
        return True
    for warning in looking.warnings:
        host.warn(warning)
    return False


def lacking(host: Host, parts: Mapping[str, Sequence[Callable[[Host], bool]]]) -> list[str]:
    """Return the names of the `parts` of a host about which there is something to do; a part may have several sides.

    A side that fails is something to do, as whoever does it tells what is wrong. But what is wrong with the request is told before
    anybody begins: raise UsageError or RefusedError that has every error of every side.
    """
    errors: list[PgopsError] = []
    found = []
    for name, sides in parts.items():
        if sum(_lacks_or_fails(host, side, errors) for side in sides):  # each of them is looked at
            found.append(name)
    if len(errors) < 2:
        for error in errors:
            raise error
        return found
    hints = dict.fromkeys(error.hint for error in errors if error.hint)
    # Two sides of one part may find the same.
    raise type(errors[0])("\n".join(dict.fromkeys(error.message for error in errors)), hint=" ".join(hints))


def _lacks_or_fails(host: Host, side: Callable[[Host], bool], errors: list[PgopsError]) -> bool:
    try:
        return lacks(host, side)
    except (UsageError, RefusedError) as error:
        errors.append(error)
        return True
    except (PgopsError, OSError):
        return True


def answers(host: Host, program: str, configurations: Sequence[str]) -> list[dict[str, Any]]:
    """Ask `program` for the status of each of `configurations`; return `config`, `rc`, `said` and `stderr` of each.

    `said` is the answer, None where it is none; no text, in which what masks secrets would find them anywhere. None at all
    where it cannot be asked: whoever asks by other means hears why.
    """
    found = []
    for path in configurations:
        try:
            said = host.runner.run(
                Command((program, "--json", "--config", path, "status")), check=False, timeout=_SECONDS
            )
        except PgopsError:
            return []
        try:
            answer = json.loads(said.stdout)
        except ValueError:
            answer = None
        found.append(
            {"config": path, "rc": said.returncode, "said": answer, "stderr": host.runner.redactor.text(said.stderr)}
        )
    return found


__all__ = ("answers", "lacking", "lacks")
