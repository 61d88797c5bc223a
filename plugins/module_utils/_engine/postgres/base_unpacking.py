# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""From the tars of a base backup to a data directory: unpacked by tar, held against PostgreSQL's list, tablespaces in new places.

Of an incremental one the whole chain is unpacked, inside the directories that are to be filled, and put together by
pg_combinebackup; so it takes room in the right file systems, and what is left of a failure goes with them.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..context import Context
from ..core.base_list import NAME
from ..core.errors import NO_SPACE, CommandError, DamagedError, UnreachableError
from ..core.manifest import Base, Payload
from ..core.segments import number_at, number_before, parse_lsn
from ..source import Source
from ..system.durable import create_private
from ..system.runner import Command
from .throwaway import give
from .tools import Programs

_TABLESPACE_MAP = "tablespace_map"
_ROOM, _WHOLE = ".pgops-chain", "whole"
# What pg_control remembers of the server, and a server that replays its WAL must not go below.
_LEAST = {
    "max_connections setting": "max_connections",
    "max_worker_processes setting": "max_worker_processes",
    "max_wal_senders setting": "max_wal_senders",
    "max_prepared_xacts setting": "max_prepared_transactions",
    "max_locks_per_xact setting": "max_locks_per_transaction",
}
_ANOTHER = (
    "Name another base backup (pgops info lists them): an older one needs more WAL, and leads to the same moment."
)
_SEGMENT = "Bytes per WAL segment"
_MIB = 1024 * 1024
# What they are where no configuration says otherwise; with less than two segments each no server starts.
_WAL_SIZES = {"min_wal_size": 80, "max_wal_size": 1024}


def unpack(source: Source, base: Base, data: Path, account: str, locations: Mapping[str, Path]) -> None:
    """Unpack the base backup into the new directory `data`, and each tablespace (by its number) into its new `locations`.

    The directories belong to `account` if there is one. Raise DamagedError, CommandError, UsageError (no key) or
    UnreachableError (no tar); what was unpacked stays then.
    """
    _extract(source, base.payload, data, account)
    if base.wal is not None:
        _extract(source, base.wal, data / "pg_wal", account)
    for tablespace in base.tablespaces:
        place = locations[tablespace.oid]
        _extract(source, tablespace.payload, place, account)
        (data / "pg_tblspc" / tablespace.oid).symlink_to(place)
    if base.listing is not None:
        with create_private(data / NAME) as stream:
            stream.write(source.content_of(base.listing))
        give(account, data / NAME)


def unpack_chain(
    chain: Sequence[Source], programs: Programs, data: Path, account: str, locations: Mapping[str, Path]
) -> None:
    """Do as unpack() does for the last of `chain`, whose others are what it builds on, the full one first.

    Raise what unpack() raises, DamagedError with what pg_combinebackup says, UnreachableError if it is not there.
    """
    links = [(source, _base(source)) for source in chain]
    if len(links) == 1:
        unpack(*links[0], data, account, locations)
        return
    check_combine(programs)
    context, last = chain[-1].context, links[-1][1]
    rooms = {oid: _room(place, account) for oid, place in locations.items()}
    room = _room(data, account)
    for number, (source, base) in enumerate(links):
        places = {t.oid: rooms.get(t.oid, room) / ("%d-%s" % (number, t.oid)) for t in base.tablespaces}
        try:
            unpack(source, base, room / str(number), account, places)
        except CommandError as error:
            error.message = "%s cannot be unpacked: %s" % (source.set_id, error.message)
            raise
    moved = {rooms[t.oid] / ("%d-%s" % (len(links) - 1, t.oid)): rooms[t.oid] / _WHOLE for t in last.tablespaces}
    context.reporter.phase("putting the chain of %d together" % len(links), 0)
    _combine(context, programs, account, last, [room / str(n) for n in range(len(links))], moved)
    for oid, inner in rooms.items():
        _lift(inner)
        link = room / _WHOLE / "pg_tblspc" / oid
        link.unlink(missing_ok=True)
        link.symlink_to(locations[oid])
    _lift(room)
    context.reporter.done()


def unpacked_bytes(chain: Sequence[Source]) -> int:
    """Return the room that unpack_chain() needs at most."""
    return sum(unpacked_sizes(chain).values())


def unpacked_sizes(chain: Sequence[Source]) -> dict[str, int]:
    """Return the room that unpack_chain() needs at most, of each tablespace by its number, and the rest of it by an empty one.

    The data directory comes first. What is not known of a tablespace counts there. So does the WAL of each set, which comes beside its
    files.
    """
    bases = [_base(source) for source in chain]
    parts = bases if len(bases) > 1 else []
    found = {"": bases[-1].bytes + sum(base.own_bytes or base.bytes for base in parts)}
    for tablespace in bases[-1].tablespaces:
        same = [(base, t) for base in parts for t in base.tablespaces if t.oid == tablespace.oid]
        own = sum(max(t.own_bytes if base.own_bytes else t.bytes, 0) for base, t in same)
        found[tablespace.oid] = max(tablespace.bytes, 0) + own
        found[""] = max(found[""] - found[tablespace.oid], 0)
    found[""] += sum(wal_bytes(source) for source in (*(chain if parts else ()), chain[-1]))
    return found


def wal_bytes(source: Source) -> int:
    """Return what the WAL takes that the base backup brings along, 0 where its manifest does not say which that is."""
    manifest, size = source.manifest, _base(source).wal_segment_bytes
    if not manifest.wal_start or not manifest.wal_end:
        return 0
    return (
        number_before(parse_lsn(manifest.wal_end), size) - number_at(parse_lsn(manifest.wal_start), size) + 1
    ) * size


def check_combine(programs: Programs) -> None:
    """Raise UnreachableError if there is no pg_combinebackup."""
    if not programs.has("pg_combinebackup"):
        raise UnreachableError(
            "There is no pg_combinebackup %s in %s, which puts incremental base backups together."
            % (programs.version, programs.directory),
            hint="Install postgresql-client-%d, which it comes with." % programs.major,
        )


def _base(source: Source) -> Base:
    if source.manifest.base is None:
        raise DamagedError("The manifest of %s describes no base backup." % source.set_id)
    return source.manifest.base


def _room(place: Path, account: str) -> Path:
    """Return a new directory inside `place`, which is made if it is not there."""
    room = place / _ROOM
    for path in (place, room):
        path.mkdir(mode=0o700, exist_ok=True)
        path.chmod(0o700)
        give(account, path)
    return room


def _lift(room: Path) -> None:
    """Move what was put together in `room` one directory up, and remove the rest."""
    for entry in (room / _WHOLE).iterdir():
        entry.rename(room.parent / entry.name)
    shutil.rmtree(room)


def _combine(
    context: Context, programs: Programs, account: str, base: Base, parts: Sequence[Path], moved: Mapping[Path, Path]
) -> None:
    """Put `parts` together beside them; tablespaces of the last one are `moved` from and to there."""
    tool, target = programs.path("pg_combinebackup"), parts[-1].with_name(_WHOLE)
    devices = {path.parent.stat().st_dev for path in (target, *moved.values())}
    # The parts go at once, so that their files may become those of the whole.
    can_link = len(devices) == 1 and b"--link" in context.runner.run(Command((tool, "--help"), user=account)).stdout
    options = ["--link"] if can_link else []
    options += ["--tablespace-mapping=%s=%s" % (_mapped(old), _mapped(new)) for old, new in moved.items()]
    command = Command(
        (
            tool,
            "--no-sync",
            "--manifest-checksums=%s" % base.algorithm,
            "--output=%s" % target,
            *options,
            *(str(part) for part in parts),
        ),
        user=account,
        ends_with_us=True,
    )
    try:
        context.runner.run(command)
    except CommandError as error:
        if error.returncode < 0:  # killed: no verdict
            raise UnreachableError(error.message, hint="Look for memory and limits of the account.") from None
        if "No space left on device" in error.stderr:
            raise
        said = [line for line in error.stderr.splitlines() if "error:" in line] or [error.message]
        raise DamagedError("The chain cannot be put together. %s" % "; ".join(said[:5])) from None


def _mapped(path: Path) -> str:
    """Return a path for --tablespace-mapping, where an equals sign parts two of them."""
    return str(path).replace("=", "\\=")


def _extract(source: Source, payload: Payload, folder: Path, account: str) -> None:
    context = source.context
    tar = context.runner.find("tar")
    if tar is None:
        raise UnreachableError("The program tar is not installed.", hint="Install the package tar.")
    folder.mkdir(mode=0o700, exist_ok=True)
    folder.chmod(0o700)
    give(account, folder)
    context.reporter.phase("unpacking %s" % payload.path, source.size(payload))
    words = (tar, "--extract", "--file=-", "--directory=%s" % folder, "--no-same-owner")
    command = Command(words, user=account, ends_with_us=True)
    try:
        for _nothing in source.script(payload, command):
            pass
    except CommandError as error:
        if error.returncode >= 0 and NO_SPACE not in error.stderr:
            _look_for_damage(source, payload)
        raise
    except DamagedError as error:
        error.hint = error.hint or _ANOTHER
        raise
    context.reporter.done()


def _look_for_damage(source: Source, payload: Payload) -> None:
    """Raise DamagedError if what a program stumbled over is not what was stored."""
    try:
        for file in source.manifest.files_of(payload):
            for _nothing in source.chunks(file):
                pass
    except DamagedError as error:
        error.hint = error.hint or _ANOTHER
        raise error from None


def verify_unpacked(
    context: Context, programs: Programs, data: Path, account: str, ignored: Sequence[str] = ()
) -> None:
    """Have pg_verifybackup hold the data directory against PostgreSQL's list, and read the WAL; but for the `ignored` files.

    Raise DamagedError with what differs, UnreachableError if it does not run here at all.
    """
    tool = programs.path("pg_verifybackup")
    if (
        not programs.has("pg_verifybackup")
        or context.runner.run(Command((tool, "--version"), user=account), check=False).returncode
    ):
        raise UnreachableError("pg_verifybackup %s does not run here." % programs.version, hint="Reinstall it.")
    options: tuple[str, ...] = () if programs.has("pg_waldump") else ("--no-parse-wal",)
    options += tuple("--ignore=%s" % path for path in ignored)
    command = Command((tool, "--quiet", *options, str(data)), user=account, ends_with_us=True)
    try:
        context.runner.run(command)
    except CommandError as error:
        if error.returncode < 0:  # killed: no verdict
            raise UnreachableError(error.message, hint="Look for memory and limits of the account.") from None
        said = "; ".join(re.sub("^pg_verifybackup: error: ", "", line) for line in error.stderr.splitlines()[:5])
        raise DamagedError("pg_verifybackup: %s" % (said or error.message)) from None


def write_tablespace_map(base: Base, data: Path, account: str, locations: Mapping[str, Path]) -> None:
    """Let the server that starts on `data` find the tablespaces in `locations`: it makes its links from this file.

    PostgreSQL's own, with the directories of the original, goes. Raise DamagedError if it names tablespaces that are not there.
    """
    path = data / _TABLESPACE_MAP
    there = path.read_text(encoding="utf-8", errors="surrogateescape") if path.exists() else ""
    lacking = [
        "%s (number %s)" % (where, oid)
        for oid, where in re.findall(r"^([0-9]+) (/.*)", there, re.MULTILINE)
        if oid not in {t.oid for t in base.tablespaces}
    ]
    if lacking:
        raise DamagedError(
            "The base backup lacks the tablespace in %s, which was made while it began." % ", ".join(lacking),
            hint="Take another one.",
        )
    if not base.tablespaces:
        path.unlink(missing_ok=True)
        return
    lines = ["%s %s\n" % (t.oid, re.sub(r"([\\\r\n])", r"\\\1", str(locations[t.oid]))) for t in base.tablespaces]
    path.write_text("".join(lines), encoding="utf-8", errors="surrogateescape")
    give(account, path)


def least_settings(context: Context, programs: Programs, data: Path, account: str) -> dict[str, str]:
    """Return the settings below which the server of `data` would not start, or not replay its WAL."""
    shown = context.runner.run(Command((programs.path("pg_controldata"), str(data)), user=account)).stdout
    found: dict[str, str] = {}
    for line in shown.decode("utf-8", "replace").splitlines():
        name, _unused, value = line.partition(":")
        if name in _LEAST:
            found[_LEAST[name]] = value.strip()
        elif name == _SEGMENT:
            least = 2 * int(value) // _MIB
            found.update((setting, "%dMB" % least) for setting, usual in _WAL_SIZES.items() if least > usual)
    return found


__all__ = (
    "check_combine",
    "least_settings",
    "unpack_chain",
    "unpacked_bytes",
    "unpacked_sizes",
    "verify_unpacked",
    "wal_bytes",
    "write_tablespace_map",
)
