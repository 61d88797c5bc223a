# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Pins: a pinned set stays until it is unpinned, whatever retention says. A pin is the file `pins/<set id>`."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
from typing import Any, Optional

from ..context import Context
from ..core.errors import MissingError, UsageError
from ..core.json_text import to_json
from ..core.naming import is_set_id
from ..core.times import iso
from ..places.base import PINS, Place
from ..places.catalog import Catalog


def pin(context: Context, place: str, set_id: str, reason: str, *, dry_run: bool = False) -> dict[str, Any]:
    """Pin `set_id` (an id, `latest` or `latest_verified`) in `place` for `reason`; with `dry_run` only say what changes.

    Return `changed`, `place`, `root`, `set` and `pin`. A pin with that very reason is left as it is.
    Raise MissingError if there is no such set, UsageError without a reason.
    """
    reason = " ".join(reason.split())
    if not reason:
        raise UsageError("A pin needs a reason.", hint="Say why the set must stay, so that others know when it may go.")
    with _lock(context, dry_run):
        where = context.place(place)
        found = Catalog(where).find(set_id, context.clock(), warn=context.warn)
        held = read_pin(where, found)
        changed = held is None or held.get("reason") != reason
        if changed:
            since = (held or {}).get("since") or iso(context.clock())
            held = {"set": found, "reason": reason, "since": since, "by": _who(context.host)}
        if changed and not dry_run:
            where.write(_path(found), to_json(held))
    return {"changed": changed, "place": where.name, "root": where.root, "set": found, "pin": held}


def unpin(context: Context, place: str, set_id: str, *, dry_run: bool = False) -> dict[str, Any]:
    """Take the pin off `set_id` in `place`, also when the set itself is gone. Return as pin() does."""
    if not is_set_id(set_id):
        raise UsageError("%r names no set." % (set_id,), hint="Give an id like 20261122T020000Z-logical.")
    with _lock(context, dry_run):
        where = context.place(place)
        held = read_pin(where, set_id)
        if held is not None and not dry_run:
            where.delete([_path(set_id)])
    return {"changed": held is not None, "place": where.name, "root": where.root, "set": set_id, "pin": held}


def read_pin(place: Place, set_id: str) -> Optional[dict[str, Any]]:
    """Return what the pin of `set_id` says, or None without one. A pin that cannot be understood still is one: {}."""
    if _path(set_id) not in place.entries(PINS):
        # Who may list only some of a bucket is denied what is missing, rather than told that it is.
        return None
    try:
        said = json.loads(place.read(_path(set_id)).decode("utf-8"))
    except MissingError:
        return None
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _lock(context: Context, dry_run: bool) -> contextlib.AbstractContextManager[None]:
    """A dry run reads without a lock, as even the lock's file is something that it would leave behind."""
    return contextlib.nullcontext() if dry_run else context.lock("sets", shared=True)


def _path(set_id: str) -> str:
    return "%s/%s" % (PINS, set_id)


def _who(host: str) -> str:
    number = os.geteuid()
    try:
        name = pwd.getpwuid(number).pw_name
    except KeyError:
        name = "uid %d" % number
    return "%s@%s" % (name, host)


__all__ = ("pin", "read_pin", "unpin")
