# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""How far the WAL of all places together brings base backups: a server that recovers takes each file where it finds it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Optional

from ..context import Context
from ..core.errors import PgopsError
from ..core.segments import USUAL_SIZE
from ..core.window import Base, Window, undisputed, windows
from ..wal.holdings import Lineage, apart, histories, lineages, segment_size
from ..wal.proofs import remembered

History = list[tuple[int, int, str]]


def windows_of(context: Context, bases: Iterable[Base], *, only: str = "") -> Optional[list[Window]]:
    """Return the recoverable windows of each timeline by cluster, the newest last; None if no place can be read.

    A place that cannot be read is told, and what it holds does not count; so does what others hold than the place `only`.
    """
    known, read = list(bases), False
    segments: dict[str, dict[str, datetime]] = {}
    written: dict[str, set[str]] = {}
    past: dict[str, dict[int, History]] = {}
    sizes: dict[str, int] = {}
    everywhere: list[dict[str, Lineage]] = []
    for place in context.places():
        if only and place.name != only:
            continue
        try:
            here = lineages(place, remembered(context.state, place.name, place.root))
            everywhere.append(here)
            for identifier, lineage in here.items():
                held = segments.setdefault(identifier, {})
                for name, stored in lineage.segments().items():
                    # S3 knows only when it got it, which may be long after it was archived.
                    held[name] = min(held.get(name, stored), stored)
                    if place.name != "s3":
                        written.setdefault(identifier, set()).add(name)
                past.setdefault(identifier, {}).update(histories(place, lineage, context.warn))
                sizes[identifier] = sizes.get(identifier) or segment_size(place, lineage)
            read = True
        except (PgopsError, OSError) as error:
            context.warn("The WAL in %s could not be listed: %s" % (place.root, error))
    if not read:
        return None
    disputes = apart(everywhere)
    for identifier, timelines in disputes.items():
        context.warn(
            "The places hold different histories of timeline %s of the cluster %s, so no recovery is known to get across the switch to it:"
            " pgops wal status." % (", ".join(map(str, timelines)), identifier)
        )
    found: list[Window] = []
    for identifier in sorted(segments):
        found += windows(
            identifier,
            known,
            segments[identifier],
            undisputed(past.get(identifier, {}), disputes.get(identifier, ())),
            sizes.get(identifier) or USUAL_SIZE,
            each=True,
            arrived=set(segments[identifier]) - written.get(identifier, set()),
        )
    return found


__all__ = ("windows_of",)
