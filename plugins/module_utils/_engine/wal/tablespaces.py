# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Tablespaces that the WAL makes while a recovered server replays it: none may lie where another server's lies.

PostgreSQL makes them in the directory of the original, also if that is there and in use. So each segment is looked into before
it is replayed, and a record that makes one is led to another directory, or stops the recovery. What may lie where is said in
a file of the data directory, which a recovery of ours lays there; to a server without it (a standby) nothing is done.

A path in a record has only so much room, so a record that is changed names a short link, which lies in the data directory as
well as in pg_tblspc, for PostgreSQL reads it from both. When the recovery is proven, the server's links lead past it. Of a record that
begins in one segment and ends in the next, the first part is remembered: where it leads is decided when the next one comes.
"""

from __future__ import annotations

import contextlib
import os
import re

from ..core.errors import DamagedError, RefusedError
from ..core.segments import SEGMENT, is_size, kind, number_of, start_of
from ..core.tablespace_records import begun_with, ended, ended_with, found_in, led_to

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from typing import Any

FILE = "pgops_tablespaces"
_LINKS = "pg_tblspc"
_LINK = re.compile("t[0-9]{1,3}")
_FOLLOWS = "standby.signal"  # what has become a standby since is nobody's copy


def lay(
    data: Path,
    account: str,
    *,
    home: Path,
    places: Mapping[str, str],
    ours: Mapping[str, str],
    others: str,
    numbers: Mapping[str, str],
) -> None:
    """Say in the data directory `data`, whose name will be `home`, where tablespaces may lie, by their original directories.

    `places` are those for which somebody gave a directory, `ours` those of the base backup, whose directories hold them already (by
    their `numbers` as well). Any other gets the directory `others` with a number behind it; without that its own, if nothing is in it.
    """
    state = {"home": str(home), "places": dict(places), "made": dict(ours), "fresh": [], "links": {}, "refused": []}
    _write(str(data), {**state, "base": sorted(ours), "others": others, "numbers": dict(numbers)}, account)


def look_into(data: str, name: str, path: str, account: str = "") -> None:
    """Look into the file `path`, which is the WAL file `name`, before the server of the directory `data` replays it.

    What makes a tablespace is led to where that may lie. Raise RefusedError if it may lie nowhere: it must not be replayed.
    """
    there = os.path.exists(os.path.join(data, FILE)) and not os.path.exists(os.path.join(data, _FOLLOWS))
    if kind(name) != SEGMENT or not there:
        return
    with open(path, "rb") as stream:
        content = stream.read()
    if not is_size(len(content)):
        return
    number = number_of(name, len(content))
    start = start_of(number, len(content))
    found, head, rest = found_in(content, start)
    if not found and not head and not rest:
        return
    state, changed = _read(data), content
    before = _text(state)
    try:
        if rest:
            changed = _end(data, state, number, changed, start, account)
        for made in found:
            if made.path in _links(state):
                continue  # it has been led there already
            place = _place(state, made.path, account)
            state.setdefault("numbers", {})[str(made.oid)] = place
            if place != made.path:
                changed = _fitting(led_to, changed, start, made, _link(data, state, made.path, place))
        if head:
            changed = _begin(state, number, changed, start, head)
    except RefusedError as error:
        state["refused"] = [error.message, error.hint]
        _write(data, state, account)
        raise
    if _text(state) != before:
        _write(data, state, account)
    if changed != content:
        from .spool import restore_to

        restore_to(changed, path)
        _give(path, account)


def _begin(state: dict[str, Any], number: int, content: bytes, start: int, head: bytes) -> bytes:
    """Remember the first part of a record that ends in the segment behind `number`; return the segment with a link to where that says."""
    key = str(number + 1)
    # What ended in nothing of interest was another record, of which only the head of the header was there.
    state["begun"] = {k: one for k, one in state.get("begun", {}).items() if k == key or "place" in one}
    begun = state["begun"].setdefault(key, {})
    if head.hex() not in (begun.get("head"), begun.get("led")):  # the segment may come again as it was handed over
        begun.clear()
        begun.update(head=head.hex(), link=_free(state))
    changed = _fitting(begun_with, content, start, head, begun["link"])
    begun["led"] = found_in(changed, start)[1].hex()
    return changed


def _end(data: str, state: dict[str, Any], number: int, content: bytes, start: int, account: str) -> bytes:
    """Return the segment `number` with the rest of the record that began in the one before, if that makes a tablespace."""
    begun = state.get("begun", {}).get(str(number))
    head = bytes.fromhex(begun["head"]) if begun else b""
    made = ended(content, start, head) if begun else None
    if begun is None or made is None:
        return content
    begun["place"] = _links(state).get(made.path) or _place(state, made.path, account)
    state.setdefault("numbers", {})[str(made.oid)] = begun["place"]
    _lay_link(data, begun["link"], begun["place"])
    return _fitting(ended_with, content, start, head, begun["link"])


def look_into_all(data: Path, account: str) -> None:
    """Look into the WAL that the data directory itself brings along, as look_into() does."""
    for path in sorted((data / "pg_wal").iterdir()):
        look_into(str(data), path.name, str(path), account)


def refused(data: Path) -> list[str]:
    """Return why a segment was not handed over, and what to do then; empty if none was refused."""
    return [str(text) for text in _read(str(data)).get("refused", [])]


def made_by_wal(data: Path) -> dict[str, str]:
    """Return where the tablespaces lie that the WAL made, by their original directories: not those of the base backup."""
    state = _read(str(data))
    return {path: place for path, place in sorted(state.get("made", {}).items()) if path not in state["base"]}


def places_by_number(data: Path) -> dict[str, str]:
    """Return where the tablespaces lie that a recovery laid here, by their numbers: those of the base backup, and that the WAL made."""
    return dict(_read(str(data)).get("numbers", {}))


def made_anew(data: Path) -> list[str]:
    """Return the directories that were made for them."""
    return list(_read(str(data)).get("fresh", []))


def home_of(data: Path) -> str:
    """Return which data directory its tablespaces were marked for."""
    return str(_read(str(data)).get("home", data))


def has_links(data: Path) -> bool:
    """Tell whether a record was changed: until a checkpoint comes after it, the server may replay it once more."""
    return bool(_links(_read(str(data))))


def settle(data: Path, *, promoted: bool) -> None:
    """Let the server's links lead to the directories themselves; once it is promoted, and has no need to replay anything, all else goes."""
    from ..system.durable import sync_dir

    state = _read(str(data))
    links, folder = _links(state), data / _LINKS
    for entry in sorted(folder.iterdir()):
        if entry.is_symlink() and os.readlink(entry) in links and entry.name.isdecimal():
            _lead(str(entry), links[os.readlink(entry)])
    sync_dir(folder)
    if not promoted:
        return
    for link in links:
        for inside in (folder / link, data / link):
            if inside.is_symlink():
                inside.unlink()
    (data / FILE).unlink(missing_ok=True)


def _place(state: dict[str, Any], path: str, account: str) -> str:
    """Return where the tablespace with the original directory `path` lies, which is ready then. Raise RefusedError."""
    made: dict[str, str] = state["made"]
    if path not in made:
        place = state["places"].get(path)
        if not place and state["others"]:
            place = "%s-%d" % (state["others"], len(made) + 1)
        if not place and not path.startswith("/"):
            raise RefusedError(
                "The WAL that is replayed makes a tablespace that an earlier recovery led elsewhere: where is not known.",
                hint="Recover from a younger base backup, or along the timeline before that recovery (--timeline).",
            )
        made_here = _prepare(place or path, path, state["home"], account)
        made[path] = place or path
        if made_here:
            state["fresh"].append(made[path])
    return made[path]


def _prepare(place: str, path: str, home: str, account: str) -> bool:
    """Make the directory `place` for a tablespace, and mark it as not proven; tell whether it was not there. Raise RefusedError."""
    from pathlib import Path

    from ..postgres.unproven import MARK, is_marked, mark

    what = "The WAL that is replayed makes a tablespace in %s, which the base backup does not have" % path
    hint = (
        "Give it an empty directory of its own: --tablespace %s DIR (tablespaces of the module and the playbook)."
        % path
    )
    there = os.path.isdir(place)
    try:
        ours = [MARK] if is_marked(Path(place), Path(home)) else []  # of a call that was ended right behind it
        if there and os.listdir(place) not in ([], ours):
            raise RefusedError("%s, and %s is not empty: it may be another server's." % (what, place), hint=hint)
        mark(Path(place), Path(home), account)
    except OSError as error:
        raise RefusedError("%s, and %s cannot be used: %s." % (what, place, error.strerror), hint=hint) from error
    return not there


def _links(state: dict[str, Any]) -> dict[str, str]:
    """Return where our links lead, by their names; as if nothing had a name of ours that we have not given."""
    found = {link: state["made"][path] for path, link in state.get("links", {}).items()}
    found.update((one["link"], one["place"]) for one in state.get("begun", {}).values() if "place" in one)
    return {link: place for link, place in found.items() if _LINK.fullmatch(link)}


def _free(state: dict[str, Any]) -> str:
    """Return a name for another link."""
    taken = {*state["links"].values(), *(one.get("link") for one in state.get("begun", {}).values())}
    return next(name for name in ("t%d" % number for number in range(len(taken) + 1)) if name not in taken)


def _link(data: str, state: dict[str, Any], path: str, place: str) -> str:
    """Return the short link to `place`, which is to stand where `path` was."""
    links: dict[str, str] = state["links"]
    if path not in links:
        links[path] = _free(state)
    _lay_link(data, links[path], place)
    return links[path]


def _lay_link(data: str, link: str, place: str) -> None:
    for inside in (os.path.join(data, link), os.path.join(data, _LINKS, link)):
        _lead(inside, place)


def _fitting(change: Callable[..., bytes], *arguments: Any) -> bytes:
    """Return the segment as `change` makes it. Raise RefusedError where the record has no room for the link."""
    try:
        return change(*arguments)
    except ValueError as error:
        raise RefusedError(
            "The WAL that is replayed makes a tablespace whose path is too short to be led elsewhere: %s" % error,
            hint="Recover from a younger base backup, or to a moment before.",
        ) from error


def _lead(link: str, place: str) -> None:
    """Let `link` lead to `place`, at no moment nowhere."""
    if os.path.islink(link) and os.readlink(link) == place:
        return
    temporary = link + ".pgops"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
    os.symlink(place, temporary)
    os.rename(temporary, link)


def _read(data: str) -> dict[str, Any]:
    import json

    try:
        with open(os.path.join(data, FILE), encoding="ascii") as stream:
            state: dict[str, Any] = json.load(stream)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise DamagedError("%s cannot be read: %s." % (os.path.join(data, FILE), error)) from error
    return state


def _write(data: str, state: dict[str, Any], account: str) -> None:
    from .spool import restore_to

    path = os.path.join(data, FILE)
    restore_to(_text(state).encode("ascii"), path)
    _give(path, account)


def _text(state: dict[str, Any]) -> str:
    import json

    return json.dumps(state, sort_keys=True)


def _give(path: str, account: str) -> None:
    if account:
        import pwd

        os.chown(path, pwd.getpwnam(account).pw_uid, pwd.getpwnam(account).pw_gid, follow_symlinks=False)


__all__ = (
    "FILE",
    "has_links",
    "home_of",
    "lay",
    "look_into",
    "look_into_all",
    "made_anew",
    "made_by_wal",
    "places_by_number",
    "refused",
    "settle",
)
