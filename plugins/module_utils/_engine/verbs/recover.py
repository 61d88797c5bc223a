# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The verb recover: a whole server from a base backup and WAL, to a moment that is proven; point-in-time recovery."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shlex
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from .. import config
from ..context import Context
from ..core.errors import DamagedError, PgopsError, RefusedError, UnreachableError, UsageError
from ..core.manifest import Base, Manifest
from ..core.naming import is_physical, is_plain_path, is_set_id
from ..core.recovery_target import Candidate, Chosen, Stopped, Target, choose_base, doubts
from ..core.segments import parse_lsn
from ..core.sizes import human_size
from ..core.times import compact, iso, parse_iso
from ..host.client import client_of
from ..places.catalog import Catalog
from ..places.chains import chain_of, failed, refuse_entwined
from ..postgres.base_unpacking import (
    check_combine,
    least_settings,
    unpack_chain,
    unpacked_sizes,
    verify_unpacked,
    write_tablespace_map,
)
from ..postgres.connection import Session
from ..postgres.debian import Cluster, cluster_of
from ..postgres.fencing import NO_ARCHIVE, UNPROVEN, append_settings, fence_beside, forget_signals, write_file
from ..postgres.recovering import Recovery, ShortError, is_served, started_here
from ..postgres.throwaway import account_of, give, server_programs, socket_directory
from ..postgres.tools import Programs
from ..postgres.unproven import (
    MARK,
    clear,
    condemn,
    is_marked,
    is_rest,
    kept_of,
    mark,
    rests,
    size_of,
    unfinished,
    unmark,
)
from ..settings import Config, Postgres, Restore
from ..source import Source
from ..system.durable import sync_dir
from ..wal.fetch import AHEAD
from ..wal.holdings import base_of
from ..wal.tablespaces import has_links, lay, look_into_all, made_anew, made_by_wal, refused, settle
from .windows import windows_of

MODES = ("beside", "in_place")
LEAVES = ("running", "stopped")
_LONGEST_SOCKET = 107


@dataclass(frozen=True)
class Request:
    """To which `target`, from which set (`auto`: the one that reaches it soonest), into which data directory.

    Modes: `beside` (a copy of its own, reached by a private socket in `socket_directory` with the number `port`), `in_place`
    (as the server itself, with its own configuration; a data directory that is there is kept under another name, and
    `confirm` must name it). `tablespaces` maps their names, or the directories that they have, to new ones; those that the WAL
    makes and nobody named lie in `others` with a number behind it, or else in the same directory, if it is empty.
    `config_file` is the server's postgresql.conf where that lies elsewhere; Debian's is found. `leave`: whether the server is
    left running, or stopped, for its own service to start it.
    """

    target: Target
    data_directory: str
    place: str = "auto"
    set: str = "auto"
    mode: str = "beside"
    port: int = 5432
    socket_directory: str = ""
    tablespaces: Mapping[str, str] = field(default_factory=dict)
    others: str = ""
    config_file: str = ""
    leave: str = "running"
    confirm: str = ""
    dry_run: bool = False


@dataclass
class _Work:
    request: Request
    chain: list[Source]
    base: Base
    chosen: Chosen
    programs: Programs
    account: str
    locations: dict[str, Path]
    command: str
    replaces: bool
    refusals: list[str]
    cluster: Optional[Cluster] = None
    served: bool = False
    rests: list[Path] = field(default_factory=list)
    places: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    @property
    def source(self) -> Source:
        """The set that is recovered; what it builds on comes before it in the chain."""
        return self.chain[-1]

    @property
    def data(self) -> Path:
        """Where the data directory is to be."""
        return Path(self.request.data_directory)

    @property
    def config_file(self) -> str:
        """The server's postgresql.conf where that lies elsewhere, empty otherwise."""
        return self.request.config_file or (str(self.cluster.config_file) if self.cluster else "")

    @property
    def service(self) -> str:
        """The service of systemd that runs the server, empty where none is known."""
        return self.cluster.service if self.cluster else ""


def recover(context: Context, request: Request) -> dict[str, Any]:
    """Recover a server to the target and prove that it stopped there; it is left as the request says.

    Result: `set`, `chain` (what it builds on), `place`, `target`, `stopped` ({lsn, time, timeline, log}), `data_directory`,
    `kept` (the old one, if there was one, also if a run that was cut short kept it), `socket_directory`, `port`, `superuser` (who
    may log in there), `service` (that of systemd which is to run it, if one is known), `running`, `databases`,
    `system_identifier`, `phases`, `remarks`; a dry run has `plan` instead.
    Raise UsageError, RefusedError (with every reason; nothing was touched), MissingError, DamagedError (it stopped
    elsewhere), PgopsError (the WAL ends before the target), CommandError or UnreachableError. What was there before is then
    as it was, but where the message says that the server is recovered and proven.
    """
    _check(request)
    dry = request.dry_run
    with context.lock("sets", shared=True, dry_run=dry), context.lock("restore", dry_run=dry):
        work = _prepare(context, request)
        if dry:
            return {"changed": True, "set": work.source.set_id, "place": work.source.place.name, "plan": _plan(work)}
        if work.refusals:
            raise RefusedError(
                "The recovery was refused:\n%s" % "\n".join("  - %s" % text for text in work.refusals),
                hint="Nothing was touched.",
            )
        for remark in (*work.chosen.remarks, *work.remarks):
            context.warn(remark)
        return _perform(context, work)


def _check(request: Request) -> None:
    if request.mode not in MODES:
        raise UsageError("%r is no mode of a recovery." % request.mode, hint="Use one of %s." % ", ".join(MODES))
    if request.leave not in LEAVES:
        raise UsageError("%r is no way to leave a server." % request.leave, hint="Use one of %s." % ", ".join(LEAVES))
    for name, path in [
        ("The data directory", request.data_directory),
        ("The directory of the socket", request.socket_directory),
        *(("The directory of the tablespace %s" % name, path) for name, path in request.tablespaces.items()),
        *(("The directory that a tablespace has", name) for name in request.tablespaces if name.startswith("/")),
    ]:
        if (path or name == "The data directory") and not is_plain_path(path):
            raise UsageError("%s must be a path from the root without .., and %r is none." % (name, path))
    if request.set != "auto" and not (is_set_id(request.set) and is_physical(request.set)):
        raise UsageError(
            "%r names no base backup." % request.set, hint="Give an id that ends in -base or -incremental, or auto."
        )


# --- prepare ----------------------------------------------------------------------------------------------------------


def _prepare(context: Context, request: Request) -> _Work:
    place = context.place(request.place)
    catalog = Catalog(place)
    if request.set == "auto":
        refuse_entwined(catalog, physical=True)
    passed_over = list[str]()
    manifests = dict(_manifests(context, catalog, request.set, passed_over))
    if passed_over and not manifests:
        raise RefusedError(
            "No base backup in %s is taken by itself: %s." % (place.root, "; ".join(passed_over)),
            hint="Look in the other place (--place), or name the one to take with --set: one whose verification failed may still do.",
        )
    windows = None
    if request.target.kind != "immediate" and _own_command(context):
        windows = windows_of(context, [base for base in map(base_of, manifests.values()) if base is not None])
    wanted = "" if request.set == "auto" else request.set
    candidates = [_candidate(m, m.base) for m in manifests.values() if m.base is not None]
    chosen = choose_base(request.target, candidates, windows, context.clock(), wanted=wanted)
    key = context.config.restore.identity_file
    chain = [Source(context, catalog, m.id, identity_file=key) for m in chain_of(catalog, chosen.base.id)]
    for source in chain:
        source.check_key()
    manifest = manifests[chosen.base.id]
    if manifest.base is None:
        raise DamagedError("The manifest of %s describes no base backup." % manifest.id)
    programs = server_programs(context, manifest.server_version_num // 10000, exactly=True)
    command, refusals, blind = "", list[str](), False
    if request.target.kind != "immediate":  # up to its own end a base backup has all WAL inside
        command = context.config.restore.restore_command
        if command == Restore().restore_command:
            command = _our_command(context, manifest, refusals)
        elif command and "wal fetch" not in command:  # which looks by itself
            looked = _looked_into(context, command)
            command, blind = looked or command, not looked
    elif context.config.restore.restore_command == Restore().restore_command:
        unsaid = list[str]()
        ours = _our_command(context, manifest, unsaid)
        command = "" if unsaid else _histories_alone(ours)
    if len(chain) > 1:
        check_combine(programs)
    work = _Work(request, chain, manifest.base, chosen, programs, account_of(context), {}, command, False, refusals)
    work.remarks = [_BLIND] if blind else []
    _check_directories(context, work)
    return work


def _our_command(context: Context, manifest: Manifest, refusals: list[str]) -> str:
    """Return how our own program fetches WAL by this very configuration, as the server is to call it."""
    path = context.config_file
    why, more = "", list[str]()
    if not path:
        why = "this run has none"
    elif "\n" in path + context.program:
        why = "%r cannot stand in a setting of PostgreSQL" % path
    else:
        written = config.load(Path(path), environ=os.environ, host=context.host)
        if written.instance != context.config.instance:
            more = ["--instance", context.config.instance]
        if _archive_of(written) != _archive_of(context.config):
            why = "%s leads to another archive than what the options lay over it" % path
    if why:
        refusals.append(
            "The server would fetch its WAL by pgops wal fetch, which reads a configuration file, and %s. Name one (config) that"
            " says it all, or give restore.restore_command." % why
        )
    # Its service may start it, too, with another PATH.
    program = shutil.which(context.program) or context.program
    client = str(client_of(Path(program)))
    if os.access(client, os.X_OK):  # the same, and sooner
        program = client
    words = [program, "wal", "fetch", "--config", path, "--system-identifier", manifest.system_identifier, *more]
    return "%s %%f %%p" % " ".join(shlex.quote(word).replace("%", "%%") for word in words)


def _looked_into(context: Context, command: str) -> str:
    """Return `command`, which is not ours, with a look into what it brings behind it; empty where the program is not found."""
    program = shutil.which(context.program) if context.program else None
    if program is None:
        return ""
    return "sh -c %s && %s wal fetch --look %%f %%p" % (shlex.quote(command), shlex.quote(program))


_BLIND = (
    "Nobody looks into the WAL for tablespaces that it makes, as the program pgops is not found on this host: each would lie in its"
    " original directory, also if a server uses that. Do not go on where it may have made one."
)


def _histories_alone(command: str) -> str:
    """Return what fetches the histories of timelines by `command`, and nothing else.

    The server looks for them to begin a timeline that is new to the archive. Where that cannot be read it goes on without.
    """
    return "case %%f in *.history) %s || exit 1;; *) exit 1;; esac" % command


def _archive_of(known: Config) -> tuple[Any, ...]:
    """Return where WAL is looked for, but for the instance, which can be named."""
    s3 = known.s3
    return (known.local.path, s3 and (s3.bucket, s3.prefix, s3.endpoint_url, s3.region))


def _manifests(
    context: Context, catalog: Catalog, wanted: str, passed_over: list[str]
) -> Iterator[tuple[str, Manifest]]:
    """Yield the base backups of which all is there that they build on, and add to `passed_over` why others are not taken.

    Only what failed in this very place counts. Raise what is wrong with the one that is wanted.
    """
    for set_id in catalog.ids():
        if is_physical(set_id):
            try:
                chain = chain_of(catalog, set_id)
                bad = failed(catalog, [manifest.id for manifest in chain], place=catalog.place.name)
                if bad and set_id != wanted:
                    passed_over.append(
                        "%s failed its verification" % bad
                        if bad == set_id
                        else "%s builds on %s, which failed its verification" % (set_id, bad)
                    )
                if bad:
                    context.warn(
                        "%s failed its verification%s."
                        % (bad, "" if set_id == wanted else ", so %s is not taken unless it is named" % set_id)
                    )
                if not bad or set_id == wanted:
                    yield set_id, chain[-1]
            except PgopsError as error:
                if set_id == wanted:
                    raise
                passed_over.append("%s: %s" % (set_id, error.message.rstrip(".")))
                context.warn("The set %s is passed over: %s" % (set_id, error))


def _candidate(manifest: Manifest, base: Base) -> Candidate:
    return Candidate(
        manifest.id,
        manifest.system_identifier,
        manifest.timeline or 1,
        parse_lsn(manifest.wal_end or "0/0"),
        parse_iso(base.stopped),
        base.next_xid,
        base.wal_segment_bytes,
    )


def _own_command(context: Context) -> bool:
    """Tell whether the WAL comes from our own archive, of which we know what it holds."""
    return "wal fetch" in context.config.restore.restore_command


def _check_directories(context: Context, work: _Work) -> None:
    """Find where everything will lie, and collect what forbids it."""
    request, data, refusals = work.request, work.data, work.refusals
    rest = is_rest(data)
    occupied = data.is_dir() and any(data.iterdir())
    if request.mode == "in_place":
        work.cluster = cluster_of(data)
        _check_cluster(work)
    refusals += _misplaced(data)
    if rest:
        work.replaces = request.mode == "in_place"
        # Our own one is ended; a service might start its own anew.
        _check_served(work, is_served(data) and not started_here(data))
        if work.replaces and request.confirm != str(data):
            refusals.append("%s was left by a recovery that was cut short: confirm it by its exact path." % data)
    elif occupied and request.mode == "beside":
        unproven = " A recovery that was cut short left it there, unproven: remove it, or look at it first."
        refusals.append("%s is not empty.%s" % (data, unproven if is_marked(data, data) else ""))
    elif occupied:
        work.replaces = True
        if os.path.ismount(data):
            refusals.append("%s is a mount point, so it cannot be kept under another name. Empty it by hand." % data)
        elif not os.access(data.parent, os.W_OK):
            refusals.append("%s does not belong to this account, so %s cannot be replaced." % (data.parent, data.name))
        _check_served(work, is_served(data))
        if request.confirm != str(data):
            refusals.append("%s would be replaced (the old one is kept): confirm it by its exact path." % data)
    elif request.mode == "in_place":
        _check_moved(work)
    _check_tablespaces(work)
    work.remarks += _younger(work)
    if request.config_file and not Path(request.config_file).is_file():
        refusals.append("There is no configuration file %s." % request.config_file)
    socket = "%s/.s.PGSQL.%d" % (request.socket_directory, request.port)
    if len(os.fsencode(socket)) > _LONGEST_SOCKET:
        refusals.append("The path %s is too long for a socket." % socket)
    homes = [home for home in (data, unfinished(data)) if is_marked(home, data)]
    left = {*work.places.values(), *(place for home in homes for place in made_by_wal(home).values())}
    work.rests = rests(data, [*work.locations.values(), *map(Path, sorted(left))])
    refusals += _lacking_room(context, work)


def _check_moved(work: _Work) -> None:
    """Find out whether a recovery was cut short between its two renames: the old data directory has another name already."""
    data = work.data
    kept = kept_of(data) if not data.exists() and is_marked(unfinished(data), data) else []
    if kept:
        work.replaces = True
        if work.request.confirm != str(data):
            work.refusals.append(
                "%s was renamed to %s by a recovery that was cut short: confirm it by its exact path."
                % (data, kept[-1])
            )


def _check_served(work: _Work, served: bool) -> None:
    work.served = served
    if served:
        work.refusals.append("A server runs on %s. Stop it first%s." % (work.data, _by_service("stop", work.service)))


def _lacking_room(context: Context, work: _Work) -> Iterator[str]:
    """Yield each file system that has no room for what is to lie there; what a run that was cut short left makes room."""
    sizes = unpacked_sizes(work.chain)
    homes = {"": work.data if _is_fixed(work.data) else work.data.parent}
    homes.update({oid: path if path.is_dir() else path.parent for oid, path in work.locations.items()})
    needed: dict[int, list[Any]] = {}
    for oid, home in homes.items():
        if home.is_dir():
            needed.setdefault(home.stat().st_dev, [home, 0])[1] += sizes[oid]
    for path in work.rests:
        if path.stat().st_dev in needed:
            needed[path.stat().st_dev][1] -= size_of(path)
    for home, size in needed.values():
        if not work.source.fits(home, size):
            yield (
                "There is no room in %s: of the base backup %s come there, beside what backup.min_free (%s) keeps free."
                % (home, human_size(max(size, 0)), context.config.backup.min_free)
            )


def _is_fixed(data: Path) -> bool:
    """Tell whether the data directory must be filled where it lies."""
    return os.path.ismount(data) or (data.is_dir() and not os.access(data.parent, os.W_OK))


def _misplaced(data: Path) -> Iterator[str]:
    if not data.parent.is_dir():
        yield "%s does not exist, so %s cannot be made in it." % (data.parent, data.name)
    if data.is_symlink():  # it alone would be renamed, and its target started by whoever knows that
        yield "%s is a symbolic link: name the directory itself, %s." % (data, os.path.realpath(data))


def _check_cluster(work: _Work) -> None:
    """Refuse what the service of a Debian cluster would not start."""
    cluster, major = work.cluster, str(work.source.manifest.server_version_num // 10000)
    if cluster is not None and cluster.version != major:
        work.refusals.append(
            "%s is the data directory of the cluster %s/%s, and the base backup is of PostgreSQL %s."
            % (work.data, cluster.version, cluster.name, major)
        )


def _by_service(action: str, service: str) -> str:
    return ": systemctl %s %s" % (action, service) if service else ""


def _check_tablespaces(work: _Work) -> None:
    """Find where the tablespaces will lie: each in a directory that is empty or not there, or was left by a run cut short."""
    request, refusals = work.request, work.refusals
    names = {word for t in work.base.tablespaces for word in (t.name, t.path)}
    later = {word: place for word, place in sorted(request.tablespaces.items()) if word not in names}
    unknown = [word for word in later if not word.startswith("/")]
    if unknown:
        refusals.append(
            "The base backup has no tablespace %s. One that was made after it is called by the directory that it had."
            % ", ".join(unknown)
        )
    work.places = {word: place for word, place in later.items() if word.startswith("/")}
    for path in map(Path, work.places.values()):
        if path.is_dir() and any(path.iterdir()) and rests(work.data, [path])[:1] != [path]:
            refusals.append("The directory %s of a tablespace is not empty: give it another one." % path)
        elif not path.parent.is_dir():
            refusals.append("%s does not exist, so no tablespace can lie in it." % path.parent)
    for tablespace in work.base.tablespaces:
        asked = request.tablespaces.get(tablespace.name, request.tablespaces.get(tablespace.path))
        path = Path(asked or tablespace.path)
        work.locations[tablespace.oid] = path
        if rests(work.data, [path])[:1] == [path]:
            continue
        if path.is_dir() and any(path.iterdir()):
            refusals.append(
                "The directory %s of the tablespace %s is not empty: give it another one." % (path, tablespace.name)
            )
        elif not path.parent.is_dir():
            refusals.append(
                "%s does not exist, so the tablespace %s cannot lie in it." % (path.parent, tablespace.name)
            )


def _younger(work: _Work) -> Iterator[str]:
    """Yield each tablespace of the server that is replaced which the base backup does not have: the WAL may make it."""
    if not work.replaces:
        return
    known = {*work.places, *(t.path for t in work.base.tablespaces)}
    with contextlib.suppress(OSError):  # this account may not look into it
        for link in sorted((work.data / "pg_tblspc").iterdir()):
            where = os.readlink(link) if link.is_symlink() else ""
            if where and where not in known:
                yield (
                    "The server has a tablespace in %s, which the base backup does not have. If it was made before the target, it needs"
                    " another directory: --tablespace %s DIR (tablespaces of the module and the playbook)."
                    % (where, where)
                )


_REST = "What a recovery that was cut short left in %s is removed: it was never proven, and nobody could write into it."


def _plan(work: _Work) -> dict[str, Any]:
    request, manifest = work.request, work.source.manifest
    return {
        "set": manifest.id,
        "place": work.source.place.root,
        "server_version": manifest.server_version,
        "target": request.target.as_data(),
        "base_stopped": work.base.stopped,
        "mode": request.mode,
        "data_directory": request.data_directory,
        "replaces": work.replaces,
        "rests": [str(path) for path in work.rests],
        "served": work.served,
        "service": work.service,
        "bytes": work.base.bytes,
        "stored_bytes": sum(source.manifest.size for source in work.chain),
        "chain": [source.set_id for source in work.chain[:-1]],
        "tablespaces": {**{t.name: str(work.locations[t.oid]) for t in work.base.tablespaces}, **work.places},
        "remarks": [*work.chosen.remarks, *work.remarks, *map(_REST.__mod__, work.rests)],
        "refusals": work.refusals,
    }


# --- perform ----------------------------------------------------------------------------------------------------------


def _perform(context: Context, work: _Work) -> dict[str, Any]:
    phases: dict[str, float] = {}
    tick = time.monotonic()
    data = work.data
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
        recovery = _recovery(context, work, sockets, alone)
        tick = time.monotonic()
        undo.callback(_throw_away, context, recovery, undo, kept)
        context.reporter.phase("recovering to %s" % work.request.target.shown)
        stopped = _replayed(context, work, recovery)
        context.reporter.done()
        phases["recover"] = round(time.monotonic() - tick, 3)
        databases = _prove(work, recovery, stopped)
        undo.pop_all()
    if kept is None and work.replaces:  # the one that was cut short had kept it
        kept = next(reversed(kept_of(data)), None)
    left = [*_made(work), *_proven(work), *_quiet(work, stopped), *_settle(work, recovery, stopped)]
    running = work.request.leave == "running"
    if alone is not None or not running:
        recovery.stop()
    if alone is not None:
        shutil.rmtree(alone, ignore_errors=True)
    if alone is not None and running:
        tick = time.monotonic()
        _open(context, work, kept)
        phases["open"] = round(time.monotonic() - tick, 3)
    for remark in left:
        context.warn(remark)
    return {
        "changed": True,
        "set": work.source.set_id,
        "chain": [source.set_id for source in work.chain[:-1]],
        "place": work.source.place.name,
        "target": work.request.target.as_data(),
        "stopped": stopped.as_data(),
        "data_directory": str(data),
        "kept": str(kept) if kept else "",
        "socket_directory": str(sockets) if sockets else "",
        "port": work.request.port if sockets else None,
        "superuser": recovery.postgres.login_user,
        "service": work.service,
        "running": running,
        "databases": databases,
        "system_identifier": work.source.manifest.system_identifier,
        "phases": phases,
        "remarks": [*work.chosen.remarks, *work.remarks, *left],
    }


def _unpack(context: Context, work: _Work, undo: contextlib.ExitStack) -> Path:
    """Unpack everything, and have it held against PostgreSQL's list; what was unpacked goes if the recovery fails."""
    data = work.data
    unpacked = data if _is_fixed(data) else unfinished(data)
    for path in (unpacked, *work.locations.values()):
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
    return unpacked


def _clear_rests(context: Context, work: _Work) -> None:
    """Remove what a recovery that was cut short left where this one goes; its server, which still recovers, is ended."""
    for path in work.rests:
        context.warn(_REST % path)
        if is_served(path):
            Recovery(context, work.programs, path, work.account, context.config.postgres).abandon()
        if is_served(path):
            raise RefusedError("A server runs on %s, and does not end." % path, hint="End it, and run this again.")
        if path == work.data and not is_rest(path):
            raise RefusedError(
                "The server in %s was promoted meanwhile." % path, hint="Nothing was removed. Look at it first."
            )
    for path in work.rests:
        clear(path)
        if path in (unfinished(work.data), work.data) and not _is_fixed(path):
            path.rmdir()


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


def _clear_made(work: _Work, data: Path) -> None:
    """Remove the tablespaces that the WAL made; what has not our mark is left alone."""
    fresh = made_anew(data)
    for path in map(Path, made_by_wal(data).values()):
        if is_marked(path, work.data):
            _clear(path, str(path) not in fresh)


def _sockets(work: _Work, undo: contextlib.ExitStack) -> Optional[Path]:
    """Return the private directory of the socket of a copy, None for the server itself."""
    if work.request.mode != "beside":
        return None
    if not work.request.socket_directory:
        path = socket_directory()
        undo.callback(shutil.rmtree, path, ignore_errors=True)
    else:
        path = Path(work.request.socket_directory)
        if not path.is_dir():
            path.mkdir(mode=0o700)
            undo.callback(shutil.rmtree, path, ignore_errors=True)
        if path.stat().st_mode & 0o077:
            raise RefusedError(
                "Others can reach the socket in %s, and the copy lets everybody in who can." % path,
                hint="Name a directory of mode 0700.",
            )
    give(work.account, path)
    return path


def _alone(work: _Work, undo: contextlib.ExitStack) -> Optional[Path]:
    """Return a private directory for the socket of the server itself: it is opened to others when it is proven."""
    if work.request.mode != "in_place":
        return None
    path = socket_directory()
    undo.callback(shutil.rmtree, path, ignore_errors=True)
    give(work.account, path)
    return path


def _configure(context: Context, work: _Work, data: Path, sockets: Optional[Path]) -> None:
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
            **work.chosen.followed(request.target).settings(),
        }
    )
    append_settings(data, work.account, settings)
    write_file(data / "recovery.signal", "", work.account)
    ours = {t.path: str(work.locations[t.oid]) for t in work.base.tablespaces}
    lay(data, work.account, home=work.data, places=work.places, ours=ours, others=request.others)


def _put_in_place(context: Context, work: _Work, unpacked: Path, undo: contextlib.ExitStack) -> Optional[Path]:
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
    for path in work.locations.values():  # before the data directory, without which nothing tells what they are
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


def _recovery(context: Context, work: _Work, sockets: Optional[Path], alone: Optional[Path]) -> Recovery:
    superuser = (work.source.manifest.roles or {}).get("bootstrap") or "postgres"
    # postgresql.conf may name another one, as on Debian, which -D does not outdo.
    options = ["-c data_directory=%s" % _quoted(str(work.data))]
    if sockets is not None:
        postgres = Postgres(login_unix_socket=str(sockets), login_user=superuser, login_db="template1")
        return Recovery(context, work.programs, work.data, work.account, postgres, options)
    if alone is not None:  # until it is proven nobody writes into it: that would be lost if it is not
        options += ["-c %s=%s" % (name, _quoted(value)) for name, value in UNPROVEN.items()]
        options.append("-c unix_socket_directories=%s" % _quoted(str(alone)))
    if work.config_file:
        options.append("-c config_file=%s" % _quoted(work.config_file))
    return Recovery(context, work.programs, work.data, work.account, context.config.postgres, options)


def _quoted(path: str) -> str:
    """Return a path for the options of pg_ctl, which a shell reads."""
    return "'%s'" % path.replace("'", "'\\''")


def _replayed(context: Context, work: _Work, recovery: Recovery) -> Stopped:
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


def _wait(context: Context, work: _Work, recovery: Recovery) -> Stopped:
    """Wait until the server has stopped at the target; or at the last record of the archive, if nothing was committed behind it.

    PostgreSQL stops at a moment only when it sees a later commit, and on a quiet server there is none. It goes to that very
    record and not to the end then, as the archive may have grown meanwhile.
    """
    try:
        return recovery.wait()
    except ShortError as short:
        target = work.chosen.followed(work.request.target)
        if short.last is None or not work.chosen.may_be_quiet(target):
            raise
        last = dataclasses.replace(target, kind="lsn", moment=None, position=short.last, inclusive=True)
    context.reporter.phase("recovering to the last record of the archive, %s" % last.shown)
    append_settings(work.data, work.account, last.settings())
    recovery.start()
    return dataclasses.replace(recovery.wait(), quiet=True)


# --- prove ------------------------------------------------------------------------------------------------------------


def _prove(work: _Work, recovery: Recovery, stopped: Stopped) -> list[str]:
    """Return the databases of the server. Raise DamagedError with all that speaks against it that it is the right one."""
    found = doubts(work.request.target, work.chosen.base, stopped, work.chosen.reach)
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


def _made(work: _Work) -> list[str]:
    """Return where the tablespaces lie that the WAL made."""
    return [
        "The WAL made a tablespace in %s; here it lies in %s." % one
        if one[0] != one[1]
        else "The WAL made a tablespace in %s, and so it is here." % one[0]
        for one in made_by_wal(work.data).items()
    ]


def _proven(work: _Work) -> list[str]:
    """Take the marks away, that of the data directory last: with it the next run would take all for the rest of one cut short."""
    failed = []
    made = [path for path in map(Path, made_by_wal(work.data).values()) if is_marked(path, work.data)]
    for path in (*work.locations.values(), *made, work.data):
        try:
            unmark([path])
        except OSError as error:
            failed.append((path / MARK, error))
    if not failed:
        return []
    files = ", ".join("%s (%s)" % (path, error.strerror or error) for path, error in failed)
    return ["%s is proven, and marked as if it were not. Remove %s." % (work.data, files)]


def _quiet(work: _Work, stopped: Stopped) -> list[str]:
    """Return what a person should know of a moment behind which there is no commit in the archive."""
    if not stopped.quiet or work.chosen.whole_until is None:
        return []
    since = "after %s" % iso(stopped.moment) if stopped.moment is not None else "since the base backup"
    return [
        "Nothing was committed between the last transaction and the target: none ended %s in the WAL that the archive had, whose"
        " last segment was written at %s." % (since, iso(work.chosen.whole_until))
    ]


def _open(context: Context, work: _Work, kept: Optional[Path]) -> None:
    """Start the server, which is proven, once more: as its own configuration says, so that clients come in."""
    server = _recovery(context, work, None, None)
    context.reporter.phase("opening the server")
    try:
        server.start()
        server.wait()
    except PgopsError as error:
        error.message = (
            "The server is recovered and proven, in %s, but it does not run as its configuration says: %s"
            % (
                work.data,
                error.message,
            )
        )
        error.hint = "Mend the configuration and start it%s%s. See %s." % (
            _by_service("start", work.service),
            ", or give %s its place again" % kept if kept else "",
            server.log,
        )
        raise
    context.reporter.done()


# --- settle -----------------------------------------------------------------------------------------------------------


def _settle(work: _Work, recovery: Recovery, stopped: Stopped) -> list[str]:
    """Take back what only the recovery needed, and return what is left to do by hand. It is proven: nothing here undoes it."""
    try:
        with recovery.session() as session:
            left = _forget_target(work, session, stopped) if work.request.mode == "in_place" else ""
            named = session.allowed(_NAMED_DIRECTORY)
            if stopped.promoted and has_links(work.data):
                session.execute("CHECKPOINT")
            settle(work.data, promoted=stopped.promoted)
    except (OSError, PgopsError) as error:
        return ["What is left to do was not found out: %s" % error]
    if stopped.promoted:  # it asks for no WAL any more
        shutil.rmtree(work.data / "pg_wal" / AHEAD, ignore_errors=True)
    remarks = [left] if left else []
    if named and os.path.realpath(named[0][0]) != os.path.realpath(work.data):
        remarks.append(
            "Its configuration (%s) names the data directory %s: change that before the server is started again, or another one"
            " is started." % (named[0][1], named[0][0])
        )
    return remarks


_NAMED_DIRECTORY = "SELECT setting, sourcefile FROM pg_file_settings WHERE name = 'data_directory' ORDER BY seqno DESC"


def _forget_target(work: _Work, session: Session, stopped: Stopped) -> str:
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
