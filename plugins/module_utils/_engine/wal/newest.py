# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Up to which moment the WAL of a place leaves nothing out: read once in its newest segment, and remembered by what that holds."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Optional, Union

from ..core.errors import PgopsError
from ..core.json_text import to_json
from ..core.segments import parse_stored
from ..core.times import iso, parse_iso
from ..core.wal_records import newest_commit
from ..core.window import Stretch, Window
from ..places.base import Place
from ..system.durable import make_dirs, write_bytes
from .holdings import Held
from .proofs import Decrypt
from .spool import opened, read_file, sha256

TRANSACTION, SEGMENT, ARRIVAL = "transaction", "segment", "arrival"
# What is larger is not fetched to look into it: who asks how things stand waits.
_MOST_FETCHED = 16 << 20
_FILE, _FORMAT = "wal-newest.json", 1


@dataclass(frozen=True)
class Reach:
    """The moment up to which nothing is missing, and by what that is known; None and empty where nothing can be recovered.

    `transaction`: the newest commit in the newest segment. `segment`: no commit could be read in it, and that is when the server
    wrote it last. `arrival`: when it came to its place, which may be long after that, so the truth may be an earlier moment.
    """

    moment: Optional[datetime] = None
    by: str = ""


@dataclass(frozen=True)
class _Known:
    """Of one content of a segment: whether it was `read`, its newest `commit`, and when the server wrote it (None: unknown)."""

    read: bool = False
    commit: Optional[datetime] = None
    written: Optional[datetime] = None


class Newest:
    """What was read of the newest segment of each place, by this process and before, which is kept in the directory `state`.

    `pg_wal` is the server's, empty where it is not at hand: what is encrypted without a key here may still lie there.
    """

    def __init__(self, state: Path, decrypt: Decrypt = None, pg_wal: str = "") -> None:
        self._state, self._decrypt, self._pg_wal = state, decrypt, pg_wal
        self._before = _remembered(state)
        self._found: dict[str, tuple[str, _Known]] = {}

    def reach(self, name: str, held: Mapping[str, Held], places: Mapping[str, Place]) -> Reach:
        """Return to where the WAL of the place `name` leads, of the places that are `held` here. What cannot be read is not raised."""
        found = _newest(held[name])
        if found is None:
            return Reach()
        window, stretch = found
        known = self._look(name, window.system_identifier, stretch, held, places)
        if known.commit is not None:
            return Reach(known.commit, TRANSACTION)
        if known.written is not None:
            return Reach(max(known.written, stretch.start_time), SEGMENT)
        return Reach(stretch.end_time, ARRIVAL)

    def keep(self) -> None:
        """Remember what counts by now. Where that cannot be, it is read once more."""
        # What a place held that is out of reach now, it will hold again.
        kept = {**self._before, **self._found}
        if kept == self._before:
            return
        data = {
            name: [key, one.read, *(iso(when) if when else "" for when in (one.commit, one.written))]
            for name, (key, one) in sorted(kept.items())
        }
        try:
            make_dirs(self._state)
            write_bytes(self._state / _FILE, to_json({"format": _FORMAT, "places": data}))
        except OSError:
            return

    def _look(
        self, name: str, identifier: str, stretch: Stretch, held: Mapping[str, Held], places: Mapping[str, Place]
    ) -> _Known:
        # A contradiction is in no stretch, so that all of them have one content.
        entries = held[name].lineages[identifier].files[stretch.last]
        paths = sorted(entry.path for entry in entries)
        key = "%s-%s" % parse_stored(paths[0].rpartition("/")[2])[:2]
        # The same content may have been seen in another place.
        known = dict([*self._before.values(), *self._found.values()]).get(key, _Known())
        local = held["local"].lineages.get(identifier) if "local" in held else None
        written = local.segments().get(stretch.last) if local is not None else None
        written = min((when for when in (written, known.written) if when is not None), default=None)
        if known.read:
            known = _Known(True, known.commit, written)
        else:
            fetched = sorted(entry.path for entry in entries if entry.size <= _MOST_FETCHED)
            content = next(self._contents(key, paths, fetched, places, name), None)
            known = _Known(content is not None, newest_commit(content) if content is not None else None, written)
        self._found[name] = key, known
        return known

    def _contents(
        self, key: str, paths: list[str], fetched: list[str], places: Mapping[str, Place], name: str
    ) -> Iterator[Union[bytes, bytearray]]:
        """Yield the content of the segment from where it can be had for the least first, as long as its hash is the right one."""
        if "local" in places:
            yield from self._stored(paths, places["local"])
        if self._pg_wal:
            segment, _dash, digest = key.rpartition("-")
            try:
                content = read_file(os.path.join(self._pg_wal, segment))
            except OSError:
                content = b""
            if sha256(content) == digest:
                yield content
        if name != "local" and name in places:
            yield from self._stored(fetched, places[name])

    def _stored(self, paths: list[str], place: Place) -> Iterator[Union[bytes, bytearray]]:
        for path in paths:
            if path.endswith(".age") and self._decrypt is None:
                continue
            try:
                blob = b"".join(place.stream(path))
                yield opened(blob, path.rpartition("/")[2], place.root, self._decrypt)
            except (PgopsError, OSError):
                continue  # wal status and verify tell of that


def _newest(held: Held) -> Optional[tuple[Window, Stretch]]:
    """Return what leads to the latest moment."""
    ends = [(window, window.stretches[-1]) for window in held.windows if window.stretches]
    return max(ends, key=lambda end: end[1].end_time, default=None)


def _remembered(state: Path) -> dict[str, tuple[str, _Known]]:
    try:
        data = json.loads((state / _FILE).read_text(encoding="utf-8"))
        if data["format"] != _FORMAT:
            return {}
        return {
            name: (str(key), _Known(bool(read), _moment(commit), _moment(written)))
            for name, (key, read, commit, written) in data["places"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, PgopsError):
        return {}


def _moment(text: Any) -> Optional[datetime]:
    return parse_iso(str(text)) if text else None


__all__ = ("ARRIVAL", "SEGMENT", "TRANSACTION", "Newest", "Reach")
