# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Verification level `restore` of a base backup: unpacked, read by pg_verifybackup, started, made consistent, looked at."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Callable

from ..context import Context
from ..core.errors import NO_SPACE, CommandError, DamagedError, PgopsError, UnreachableError
from ..core.manifest import Base
from ..core.sizes import human_size
from ..postgres import inventory
from ..postgres.base_unpacking import (
    least_settings,
    unpack_chain,
    unpacked_bytes,
    verify_unpacked,
    write_tablespace_map,
)
from ..postgres.connection import connect
from ..postgres.fencing import fence_copy
from ..postgres.prepared import prepared, roll_back
from ..postgres.throwaway import room_for_server, throwaway
from ..postgres.tools import Programs
from ..source import Source
from ..wal.tablespaces import lay, look_into_all
from .rehearsal import Rehearsal, Stage, ask, check_indexes, lap

# So the server says that the fault is in its data; whatever else keeps it from starting may be this host's.
_FAULTS = re.compile(
    "checkpoint record|backup label|backup_label|WAL ends before|control file|consistent recovery|invalid page|"
    "requested timeline|wrong (?:contents|signature)|could not (?:open|read|access) (?:file|directory)|PANIC"
)
# WAL that is replayed, and what the server writes itself.
_MORE_ROOM = 512 * 1024 * 1024


class _BrokenError(DamagedError):
    """The set itself cannot be unpacked, or is not what PostgreSQL's list says."""


def rehearse_base(context: Context, chain: Sequence[Source], base: Base, folder: Path) -> Rehearsal:
    """Start a throwaway server on the base backup in `folder`, let it become consistent, and return what that showed.

    `chain` is what it builds on, the full one first, and itself last, which `base` describes. Raise PgopsError if no server of
    its version can be had.
    """
    result, source = Rehearsal(), chain[-1]
    room, needed = room_for_server(context, folder), unpacked_bytes(chain) + _MORE_ROOM
    if not source.fits(room, needed):
        result.cannot.append(
            "There is no room in %s to unpack the base backup, which needs %s beside what backup.min_free (%s) keeps free."
            " Make room, or set work_dir to a larger disk." % (room, human_size(needed), context.config.backup.min_free)
        )
        return result
    tick = [time.monotonic()]

    def fill(programs: Programs, data: Path, account: str) -> Mapping[str, str]:
        locations = {t.oid: data.parent / ("tablespace-%s" % t.oid) for t in base.tablespaces}
        try:
            unpack_chain(chain, programs, data, account, locations)
            tick[0] = lap(result, "unpack", tick[0])
            _verify(base, result, lambda: verify_unpacked(context, programs, data, account))
            write_tablespace_map(base, data, account, locations)
        except (DamagedError, CommandError) as error:
            if NO_SPACE in "%s %s" % (error, getattr(error, "stderr", "")):
                raise
            raise _BrokenError(error.message) from None
        tick[0] = lap(result, "pg_verifybackup", tick[0])
        places = {t.path: str(locations[t.oid]) for t in base.tablespaces}
        others = str(data.parent / "tablespace-new")
        lay(data, account, home=data, places={}, ours=places, others=others, numbers={})
        look_into_all(data, account)
        fenced = fence_copy(data, account)
        return {**fenced, **least_settings(context, programs, data, account)}

    superuser = (source.manifest.roles or {}).get("bootstrap") or "postgres"
    major = source.manifest.server_version_num // 10000
    names = [str(one["name"]) for one in base.databases]
    try:
        with throwaway(context, folder, major=major, superuser=superuser, fill=fill, databases=names) as target:
            tick[0] = lap(result, "recover", tick[0])
            result.checked["server_version"] = target.server.version
            with connect(target.postgres) as session:
                stage = Stage(context, source, target, session, folder, result, ownership=True)
                _look(stage, base)
            lap(result, "compare", tick[0])
    except _BrokenError as error:
        result.findings.append(error.message)
    except UnreachableError as error:
        if not is_fault(error.message):
            raise
        result.findings.append(error.message)
    return result


def is_fault(said: str) -> bool:
    """Tell whether the data are to blame for what is said of a server that did not start, and not this host."""
    return "did not start" in said and NO_SPACE not in said and bool(_FAULTS.search(said))


def _verify(base: Base, result: Rehearsal, work: Callable[[], None]) -> None:
    """Let pg_verifybackup do its `work`. Where it cannot, checksums that we can compute ourselves were compared before."""
    try:
        work()
    except UnreachableError as error:
        if base.algorithm != "SHA256":
            result.cannot.append("%s Nobody else compares files by %s." % (error, base.algorithm))
        else:
            result.remarks.append("%s The files were compared without it." % error.message)


def _look(stage: Stage, base: Base) -> None:
    """Compare what the server holds with the manifest, and have amcheck and the assertions look at every database."""
    context, result, manifest = stage.context, stage.result, stage.source.manifest
    if stage.target.server.system_identifier != manifest.system_identifier:
        result.findings.append(
            "The cluster calls itself %s, and the manifest says %s."
            % (stage.target.server.system_identifier, manifest.system_identifier)
        )
    wanted = {str(d["name"]) for d in base.databases}
    found = {one.name: one for one in inventory.databases(stage.session)}
    lost = sorted(wanted - set(found))
    # Made or dropped while the backup ran, a database may be on one side only.
    if lost:
        result.remarks.append("It holds no database %s, which the server had when the backup began." % ", ".join(lost))
    if not wanted & set(found):
        result.findings.append("It holds none of the databases that the manifest lists.")
    result.findings += [
        "It lists the database %r and has no files of it." % one.name for one in found.values() if one.lost
    ]
    result.checked["databases"] = {name: {} for name in found}
    waiting = prepared(stage.session)
    for name, listed in found.items():
        try:
            opened = not (listed.closed or listed.lost)
            if name in waiting and opened:  # nothing would end their locks, on which who looks would wait for ever
                with stage.target.session(name) as session:
                    roll_back(session)
            if opened and context.config.verify.amcheck:
                check_indexes(name, stage.target, result)
            for assertion in context.config.verify.assertions:
                if assertion.database == name:
                    ask(stage, assertion)
        except PgopsError as error:
            result.cannot.append("%r could not be examined to the end: %s" % (name, error))


__all__ = ("is_fault", "rehearse_base")
