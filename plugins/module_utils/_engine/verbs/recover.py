# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The verb recover: a whole server from a base backup and WAL, to a moment that is proven; point-in-time recovery."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from ..context import Context
from ..core.errors import DamagedError, PgopsError, RefusedError, UnreachableError
from ..core.recovery_end import Stopped, doubts, why_short
from ..core.times import compact, iso
from ..postgres import wal_directory
from ..postgres.base_unpacking import (
    least_settings,
    unpack_chain,
    verify_unpacked,
    write_tablespace_map,
)
from ..postgres.connection import Session
from ..postgres.fencing import (
    NO_ARCHIVE,
    UNPROVEN,
    CopyLogin,
    append_settings,
    fence_beside,
    forget_signals,
    logins,
    no_event_triggers,
    write_file,
)
from ..postgres.prepared import prepared
from ..postgres.recovering import Recovery, ShortError, ShutOutError, is_served
from ..postgres.throwaway import give, socket_directory
from ..postgres.unproven import (
    MARK,
    clear,
    condemn,
    is_marked,
    is_rest,
    kept_of,
    mark,
    unfinished,
    unmark,
)
from ..system.durable import sync_dir
from ..system.runner import Command
from ..wal.fetch import AHEAD
from ..wal.tablespaces import has_links, lay, look_into_all, made_anew, made_by_wal, refused, settle
from .dropping import DroppedError, check_dropped, once_more
from .recovery_plan import (
    LEAVES,
    MODES,
    REST,
    Request,
    Work,
    by_service,
    check,
    closed_sockets,
    is_fixed,
    plan,
    prepare,
)
from .settling import forget_dropped, lay_missing

_PATIENCE_SECONDS = 60.0


def recover(context: Context, request: Request) -> dict[str, Any]:
    """Recover a server to the target and prove that it stopped there; it is left as the request says.

    Result: `set`, `chain` (what it builds on), `place`, `target`, `stopped` ({lsn, time, timeline, log}), `data_directory`,
    `kept` (the old one, if there was one, also if a run that was cut short kept it), `wal_directory` and `kept_wal_directory`
    (where the WAL of each lies, empty for inside of it), `socket_directory`, `port`, `superuser` (who
    may log in there), `service` (that of systemd which is to run it, if one is known), `running`, `databases`,
    `system_identifier`, `phases`, `remarks`; a dry run has `plan` instead.
    Raise UsageError, RefusedError (with every reason; nothing was touched), MissingError, DamagedError (it stopped
    elsewhere), PgopsError (the WAL ends before the target), CommandError or UnreachableError. What was there before is then
    as it was, but where the message says that the server is recovered and proven.
    """
    check(request)
    dry = request.dry_run
    with context.lock("sets", shared=True, dry_run=dry), context.lock("restore", dry_run=dry):
        work = prepare(context, request)
        if dry:
            return {"changed": True, "set": work.source.set_id, "place": work.source.place.name, "plan": plan(work)}
        if work.refusals:
            raise RefusedError(
                "The recovery was refused:\n%s" % "\n".join("  - %s" % text for text in work.refusals),
                hint="Nothing was touched.",
            )
        for remark in (*work.chosen.remarks, *work.remarks):
            context.warn(remark)
        try:
            return _perform(context, work)
        except DroppedError as dropped:
            if dropped.earlier is None or is_served(work.data):  # nothing is removed under one that does not end
                raise
            text = once_more(dropped.earlier)
            context.warn(text)
            again = dataclasses.replace(work, instead=dropped.earlier, rests=[], remarks=[*work.remarks, text])
            return _perform(context, again)


# --- perform ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Recovered:
    """A server that was recovered and is proven: how and by whom it is reached, what came of it, and where the old one is kept."""

    recovery: Recovery
    login: str
    stopped: Stopped
    databases: list[str]
    kept: Optional[Path]
    sockets: Optional[Path]
    alone: Optional[Path]
    remarks: list[str]


def _perform(context: Context, work: Work) -> dict[str, Any]:
    phases: dict[str, float] = {}
    done = _recovered(context, work, phases)
    left = [
        *done.remarks,
        *_made(work),
        *_proven(work),
        *_quiet(work, done.stopped),
        *_settle(work, done.recovery, done.stopped),
    ]
    running = work.request.leave == "running"
    if done.alone is not None or not running:
        done.recovery.stop()
    if done.alone is not None:
        shutil.rmtree(done.alone, ignore_errors=True)
    if done.alone is not None and running:
        tick = time.monotonic()
        left += _open(context, work, done.kept)
        phases["open"] = round(time.monotonic() - tick, 3)
    for remark in left:
        context.warn(remark)
    return {
        "changed": True,
        "set": work.source.set_id,
        "chain": [source.set_id for source in work.chain[:-1]],
        "place": work.source.place.name,
        "target": work.request.target.as_data(),
        "stopped": done.stopped.as_data(),
        "data_directory": str(work.data),
        "kept": str(done.kept) if done.kept else "",
        "wal_directory": wal_directory.outside(work.data),
        "kept_wal_directory": wal_directory.outside(done.kept) if done.kept else "",
        "socket_directory": str(done.sockets) if done.sockets else "",
        "port": work.request.port if done.sockets else None,
        "superuser": context.config.postgres.login_user if done.alone is not None else done.login,
        "service": work.service,
        "running": running,
        "databases": done.databases,
        "system_identifier": work.source.manifest.system_identifier,
        "phases": phases,
        "remarks": [*work.chosen.remarks, *work.remarks, *left],
    }


def _recovered(context: Context, work: Work, phases: dict[str, float]) -> _Recovered:
    """Recover the server and prove that it is where it was to go; else all is as it was before. Add to `phases` what took how long."""
    tick = time.monotonic()
    _clear_rests(context, work)
    with contextlib.ExitStack() as undo:
        unpacked = _unpack(context, work, undo)
        phases["unpack"] = round(time.monotonic() - tick, 3)
        sockets = _sockets(work, undo)
        _configure(context, work, unpacked, sockets)
        undo.callback(_clear_made, work, unpacked)
        look_into_all(unpacked, work.account)
        kept = _put_in_place(context, work, unpacked, undo)
        alone = _alone(work, undo)
        least = _too_low(context, work) if alone is not None else {}
        recovery = _recovery(context, work, sockets, alone, least)
        tick = time.monotonic()
        undo.callback(_throw_away, context, recovery, undo, kept)
        context.reporter.phase("recovering to %s" % work.aim.shown)
        stopped = _replayed(context, work, recovery)
        context.reporter.done()
        phases["recover"] = round(time.monotonic() - tick, 3)
        databases = _prove(work, recovery, stopped)
        with recovery.session() as session:
            login = str(session.value("SELECT session_user"))
            broken = check_dropped(work, session, stopped)
        undo.pop_all()
    if kept is None and work.replaces:  # the one that was cut short had kept it
        kept = next(reversed(kept_of(work.data)), None)
    raised = map(_RAISED.__mod__, sorted(least.items()))
    return _Recovered(recovery, login, stopped, databases, kept, sockets, alone, [*broken, *raised])


def _unpack(context: Context, work: Work, undo: contextlib.ExitStack) -> Path:
    """Unpack everything, and have it held against PostgreSQL's list; what was unpacked goes if the recovery fails."""
    data = work.data
    unpacked = data if is_fixed(data) else unfinished(data)
    for path in (unpacked, *work.locations.values(), *work.wal_alone):
        undo.callback(_clear, path, path.is_dir())
        mark(path, data, work.account)
    unpack_chain(work.chain, work.programs, unpacked, work.account, work.locations)
    try:
        marks = [MARK, *("pg_tblspc/%s/%s" % (oid, MARK) for oid in work.locations)]
        verify_unpacked(context, work.programs, unpacked, work.account, marks)
    except DamagedError:
        raise
    except PgopsError as error:
        context.warn("%s What was unpacked was held against the sums of the set only." % error.message)
    write_tablespace_map(work.base, unpacked, work.account, work.locations)
    for place in work.wal_alone:
        wal_directory.move(context, unpacked, place, work.account)
    return unpacked


def _clear_rests(context: Context, work: Work) -> None:
    """Remove what a recovery that was cut short left where this one goes; its server, which still recovers, is ended."""
    for path in work.rests:
        context.warn(REST % path)
        if is_served(path):
            Recovery(context, work.programs, path, work.account, context.config.postgres).abandon()
        if is_served(path):
            raise RefusedError("A server runs on %s, and does not end." % path, hint="End it, and run this again.")
        if path == work.data and not is_rest(path):
            raise RefusedError(
                "The server in %s was promoted meanwhile." % path, hint="Nothing was removed. Look at it first."
            )
    for path in work.rests:
        whole = path in (unfinished(work.data), work.data) and not is_fixed(path)
        try:
            clear(path, whole=whole, patience=_PATIENCE_SECONDS)
        except OSError as error:
            raise PgopsError(
                "What a recovery that was cut short left in %s could not be removed: %s" % (path, error),
                hint="If a program of that run still writes there, end it; then run this again.",
            ) from error


def _clear(path: Path, existed: bool) -> None:
    """Remove `path`, or only what is in it if it was there before. While anything is in it that was marked, its mark is."""
    if (path / MARK).exists():
        with contextlib.suppress(OSError):  # what stays is still marked
            clear(path)
            if not existed:
                path.rmdir()
        return
    if not existed:
        shutil.rmtree(path, ignore_errors=True)
        return
    for entry in path.iterdir() if path.is_dir() else ():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)


def _clear_made(work: Work, data: Path) -> None:
    """Remove the tablespaces that the WAL made; what has not our mark is left alone."""
    fresh = made_anew(data)
    for path in map(Path, made_by_wal(data).values()):
        if is_marked(path, work.data):
            _clear(path, str(path) not in fresh)


def _sockets(work: Work, undo: contextlib.ExitStack) -> Optional[Path]:
    """Return the private directory of the socket of a copy, None for the server itself."""
    if work.request.mode != "beside":
        return None
    if not work.request.socket_directory:
        path = socket_directory()
        undo.callback(shutil.rmtree, path, ignore_errors=True)
    else:
        path = Path(work.request.socket_directory)
        try:
            path.mkdir(mode=0o700)
            undo.callback(shutil.rmtree, path, ignore_errors=True)
        except FileExistsError:
            # Somebody may have made it, open to all, since the plan looked.
            for why in closed_sockets(work.request):
                raise RefusedError(why) from None
    give(work.account, path)
    return path


def _alone(work: Work, undo: contextlib.ExitStack) -> Optional[Path]:
    """Return a private directory for the socket of the server itself: it is opened to others when it is proven."""
    if work.request.mode != "in_place":
        return None
    path = socket_directory()
    undo.callback(shutil.rmtree, path, ignore_errors=True)
    give(work.account, path)
    return path


def _configure(context: Context, work: Work, data: Path, sockets: Optional[Path]) -> None:
    """Write what the recovery needs into the data directory, and the fence around it."""
    request = work.request
    settings: dict[str, str] = {}
    if sockets is not None:
        settings = {
            **least_settings(context, work.programs, data, work.account),
            **fence_beside(data, work.account),
            "unix_socket_directories": str(sockets),
            "port": str(request.port),
            "shared_preload_libraries": context.config.restore.preload,
        }
        # They name files by where they will lie.
        for name in ("external_pid_file", "hba_file", "ident_file"):
            settings[name] = str(work.data / Path(settings[name]).name)
    else:
        forget_signals(data)
        settings = {**NO_ARCHIVE, "primary_conninfo": "", "primary_slot_name": ""}
    settings.update(
        {
            "restore_command": work.command or "false",
            "recovery_min_apply_delay": "0",  # that of a delayed standby
            "hot_standby": "on",
            **work.chosen.followed(work.aim).settings(),
        }
    )
    append_settings(data, work.account, settings)
    write_file(data / "recovery.signal", "", work.account)
    ours = {t.path: str(work.locations[t.oid]) for t in work.base.tablespaces}
    numbers = {oid: str(path) for oid, path in work.locations.items()}
    lay(data, work.account, home=work.data, places=work.places, ours=ours, others=request.others, numbers=numbers)


def _put_in_place(context: Context, work: Work, unpacked: Path, undo: contextlib.ExitStack) -> Optional[Path]:
    """Give what was unpacked its name; return where the old data directory is kept, if there was one."""
    data = work.data
    kept: Optional[Path] = None
    if unpacked == data:
        return None
    if work.replaces and data.exists():
        if is_served(data):
            raise RefusedError("A server was started on %s meanwhile." % data, hint="Nothing was touched.")
        stem = "%s.before-%s" % (data.name, compact(context.clock()))
        names = (data.with_name(stem + more) for more in ("", *("-%d" % number for number in range(2, 1000))))
        kept = next(path for path in names if not path.exists())
        data.rename(kept)
        undo.callback(kept.rename, data)
    undo.callback(_clear, data, data.is_dir())
    # Before the data directory, without which nothing tells what they are.
    for path in (*work.locations.values(), *work.wal_alone):
        undo.callback(_clear, path, True)
    undo.callback(_clear_made, work, data)
    unpacked.rename(data)
    sync_dir(data.parent)
    return kept


def _throw_away(context: Context, recovery: Recovery, undo: contextlib.ExitStack, kept: Optional[Path]) -> None:
    """End the server, whose recovery failed. While it runs nothing is taken away under it: all stays as it is then."""
    ended = False
    try:
        ended = recovery.abandon()
        recovery.keep_log()
        if ended and is_marked(recovery.data, recovery.data):
            with contextlib.suppress(OSError):
                condemn(recovery.data)
    finally:  # also where somebody loses patience
        if not ended:
            undo.pop_all()
            context.warn(
                "The server in %s failed, and does not end. Nothing is removed under it: end it, remove that directory%s."
                % (recovery.data, ", and give %s its name again" % kept if kept else "")
            )


_RAISED = "The WAL was replayed with %s = %s, as the original had it. The server's configuration has less, which counts from now on."


def _too_low(context: Context, work: Work) -> dict[str, str]:
    """Return the settings that the server's own configuration has lower than its WAL needs, as they must be to replay it.

    Where it cannot be asked, as it has a fault, the server will say so itself.
    """
    needed = least_settings(context, work.programs, work.data, work.account)
    # As the server gets them: from its data directory comes what was said by ALTER SYSTEM.
    more = ["-c", "data_directory=%s" % work.data]
    more += ["-c", "config_file=%s" % work.config_file] if work.config_file else []
    found = {}
    for name, value in needed.items():
        asked = Command((work.programs.path("postgres"), "-C", name, "-D", str(work.data), *more), user=work.account)
        shown = context.runner.run(asked, check=False).stdout.decode("utf-8", "replace").strip()
        if shown.isdecimal() and value.isdecimal() and int(shown) < int(value):
            found[name] = value
    return found


def _recovery(
    context: Context, work: Work, sockets: Optional[Path], alone: Optional[Path], least: Mapping[str, str]
) -> Recovery:
    superuser = (work.source.manifest.roles or {}).get("bootstrap") or "postgres"
    # One of them takes logins, also where a hardened template1 does not.
    databases = ["postgres", "template1", *(str(one["name"]) for one in work.base.databases)]
    postgres, second = context.config.postgres, ""
    # postgresql.conf may name another one, as on Debian, which -D does not outdo.
    options = ["-c data_directory=%s" % _quoted(str(work.data))]
    if sockets is not None:
        postgres = CopyLogin(login_unix_socket=str(sockets), login_user=superuser, login_db="template1")
        postgres = postgres.of_version(work.programs.major)
        second = context.config.postgres.login_user
        return Recovery(context, work.programs, work.data, work.account, postgres, options, databases, second)
    if alone is not None:  # until it is proven nobody writes into it: that would be lost if it is not
        # Not by its own rules: the login of the configuration may not have existed at that moment, or had another password.
        postgres = CopyLogin(login_unix_socket=str(alone), login_user=superuser, login_db="template1")
        postgres = postgres.of_version(work.programs.major)
        second = context.config.postgres.login_user
        shut = {**UNPROVEN, **no_event_triggers(work.programs.major), **logins(alone, work.account)}
        options += ["-c %s=%s" % (name, _quoted(value)) for name, value in shut.items()]
        options.append("-c unix_socket_directories=%s" % _quoted(str(alone)))
    options += ["-c %s=%s" % one for one in least.items()]
    if work.config_file:
        options.append("-c config_file=%s" % _quoted(work.config_file))
    return Recovery(context, work.programs, work.data, work.account, postgres, options, databases, second)


def _quoted(path: str) -> str:
    """Return a path for the options of pg_ctl, which a shell reads."""
    return "'%s'" % path.replace("'", "'\\''")


def _replayed(context: Context, work: Work, recovery: Recovery) -> Stopped:
    """Start the server and wait until it has stopped; a segment that it was not given is why it ended then."""
    try:
        recovery.start()
        return _wait(context, work, recovery)
    except UnreachableError as error:
        why = refused(work.data)
        if not why:
            raise
        raise RefusedError(
            "The recovery was stopped: %s" % why[0], hint="What was there before is as it was. %s" % why[1]
        ) from error


def _wait(context: Context, work: Work, recovery: Recovery) -> Stopped:
    """Wait until the server has stopped at the target; or at the last record of the archive, if nothing was committed behind it.

    PostgreSQL stops at a moment only when it sees a later commit, and on a quiet server there is none. It goes to that very
    record and not to the end then, as the archive may have grown meanwhile.
    """
    try:
        return recovery.wait()
    except ShortError as short:
        target = work.chosen.followed(work.aim)
        short.hint = why_short(target, work.chosen.gap)
        if short.last is None or not work.chosen.may_be_quiet(target):
            raise
        last = dataclasses.replace(target, kind="lsn", moment=None, position=short.last, inclusive=True)
    context.reporter.phase("recovering to the last record of the archive, %s" % last.shown)
    append_settings(work.data, work.account, last.settings())
    recovery.start()
    return dataclasses.replace(recovery.wait(), quiet=True)


# --- prove ------------------------------------------------------------------------------------------------------------


def _prove(work: Work, recovery: Recovery, stopped: Stopped) -> list[str]:
    """Return the databases of the server. Raise DamagedError with all that speaks against it that it is the right one."""
    found = doubts(work.aim, work.chosen.base, stopped, work.chosen.reach)
    if work.instead is not None and stopped.moment != work.instead.ended:
        found.append("Transactions ended between that and %s." % work.instead.target.shown)
    with recovery.session() as session:
        names = [
            row[0] for row in session.rows("SELECT datname FROM pg_database WHERE datname <> 'template0' ORDER BY 1")
        ]
        system = session.value("SELECT system_identifier::text FROM pg_control_system()")
        archive = session.value("SELECT current_setting('archive_mode')")
    if system != work.source.manifest.system_identifier:
        found.append(
            "The cluster calls itself %s, and the set says %s." % (system, work.source.manifest.system_identifier)
        )
    if archive != "off":
        found.append("It would archive (archive_mode is %s), into the archive of the original." % archive)
    if found:
        raise DamagedError(
            "The server recovered, but not to %s:\n%s"
            % (work.request.target.shown, "\n".join("  - %s" % text for text in found)),
            hint="It is stopped, and what was there before is as it was, unless a warning says that it does not end.",
        )
    return names


def _made(work: Work) -> list[str]:
    """Return where the tablespaces lie that the WAL made."""
    return [
        "The WAL made a tablespace in %s; here it lies in %s." % one
        if one[0] != one[1]
        else "The WAL made a tablespace in %s, and so it is here." % one[0]
        for one in made_by_wal(work.data).items()
    ]


def _proven(work: Work) -> list[str]:
    """Take the marks away, that of the data directory last: with it the next run would take all for the rest of one cut short."""
    failed = []
    made = [path for path in map(Path, made_by_wal(work.data).values()) if is_marked(path, work.data)]
    for path in (*work.locations.values(), *made, *work.wal_alone, work.data):
        try:
            unmark([path])
        except OSError as error:
            failed.append((path / MARK, error))
    if not failed:
        return []
    files = ", ".join("%s (%s)" % (path, error.strerror or error) for path, error in failed)
    return ["%s is proven, and marked as if it were not. Remove %s." % (work.data, files)]


def _quiet(work: Work, stopped: Stopped) -> list[str]:
    """Return what a person should know of a moment behind which there is no commit in the archive."""
    if not stopped.quiet or work.chosen.whole_until is None:
        return []
    since = "after %s" % iso(stopped.moment) if stopped.moment is not None else "since the base backup"
    return [
        "Nothing was committed between the last transaction and the target: none ended %s in the WAL that the archive had, whose"
        " last segment was written at %s." % (since, iso(work.chosen.whole_until))
    ]


def _open(context: Context, work: Work, kept: Optional[Path]) -> list[str]:
    """Start the server, which is proven, once more: as its own configuration says, so that clients come in. Return what to tell."""
    server = _recovery(context, work, None, None, {})
    context.reporter.phase("opening the server")
    try:
        server.start()
        server.wait()
    except ShutOutError as error:
        context.reporter.done()
        return [
            "The server runs, and does not let the login of the configuration in (postgres.login_user): %s"
            % error.message
        ]
    except PgopsError as error:
        error.message = (
            "The server is recovered and proven, in %s, but it does not run as its configuration says: %s"
            % (
                work.data,
                error.message,
            )
        )
        error.hint = "Mend the configuration and start it%s%s. See %s." % (
            by_service("start", work.service),
            ", or give %s its place again" % kept if kept else "",
            server.log,
        )
        raise
    context.reporter.done()
    return []


# --- settle -----------------------------------------------------------------------------------------------------------


_TAKEN = (
    "The server replays that each time that it is started before it is promoted, and such a directory is gone again: the first"
    " pgops backup --kind base behind the promotion lays it once more."
)


def _settle(work: Work, recovery: Recovery, stopped: Stopped) -> list[str]:
    """Take back what only the recovery needed, and return what is left to do by hand. It is proven: nothing here undoes it."""
    mended: list[str] = []
    try:
        with recovery.session() as session:
            mended = lay_missing(work.data, session)
            mended += [_TAKEN] if mended and not stopped.promoted else []
            left = _forget_target(work, session, stopped) if work.request.mode == "in_place" else ""
            named = session.allowed(_NAMED_DIRECTORY)
            if stopped.promoted and (mended or has_links(work.data)):  # a server that crashes replays it all again
                session.execute("CHECKPOINT")
            unseen = [*_unseen(work, session), *(() if work.request.passing else _waiting(session))]
            settle(work.data, promoted=stopped.promoted)
            gone = forget_dropped(work.data, session, every=stopped.promoted)
    except (OSError, PgopsError) as error:
        return [*mended, "What is left to do was not found out: %s" % error]
    if stopped.promoted:  # it asks for no WAL any more
        shutil.rmtree(work.data / "pg_wal" / AHEAD, ignore_errors=True)
    mended += [
        "A link to %s was removed, of a tablespace that the server does not have: it was being made at that moment, or had been dropped."
        " What lies there is no part of the server." % path
        for path in gone
    ]
    remarks = [*unseen, *mended, *([left] if left else [])]
    if named and os.path.realpath(named[0][0]) != os.path.realpath(work.data):
        remarks.append(
            "Its configuration (%s) names the data directory %s: change that before the server is started again, or another one"
            " is started." % (named[0][1], named[0][0])
        )
    return remarks


_LOCATIONS = """
SELECT spcname, pg_tablespace_location(oid) FROM pg_tablespace WHERE pg_tablespace_location(oid) LIKE '/%' ORDER BY spcname
"""


def _unseen(work: Work, session: Session) -> list[str]:
    """Return what is to be told of each tablespace that the WAL made while nobody looked: where its original had it."""
    known = {*map(str, work.locations.values()), *made_by_wal(work.data).values()}
    return [
        "The WAL made the tablespace %s in %s, its original directory, and nobody looked whether a server uses that. If one"
        " does, stop this copy now, and do not use it." % (name, path)
        for name, path in session.rows(_LOCATIONS)
        if path not in known
    ]


def _waiting(session: Session) -> list[str]:
    """Return what is to be told of transactions that were prepared at the target and had not ended."""
    return [
        "In the database %r these transactions were prepared and had not ended at that moment: %s. They keep their locks, and VACUUM"
        " from cleaning up, until somebody ends them there: COMMIT PREPARED or ROLLBACK PREPARED."
        % (database, ", ".join(map(repr, names)))
        for database, names in prepared(session).items()
    ]


_NAMED_DIRECTORY = "SELECT setting, sourcefile FROM pg_file_settings WHERE name = 'data_directory' ORDER BY seqno DESC"


def _forget_target(work: Work, session: Session, stopped: Stopped) -> str:
    """Remove the target from postgresql.auto.conf, where a later recovery would find it; return why it stays, if it does."""
    names = [*work.request.target.settings(), "restore_command", "recovery_min_apply_delay"]
    why = "the recovery pauses, and needs them to go on" if not stopped.promoted else ""
    try:
        for name in names if not why else ():
            session.execute("ALTER SYSTEM RESET %s" % name)
    except PgopsError as error:
        why = error.message
    return why and (
        "The settings recovery_* and restore_command stay in postgresql.auto.conf (%s). Reset them (ALTER SYSTEM RESET …)"
        " when the server is promoted: a later recovery would stop there again." % why
    )


__all__ = ("LEAVES", "MODES", "Request", "recover")
