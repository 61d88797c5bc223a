# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""How a recovery is planned: from which base backup, by which WAL, where everything will lie, and what forbids it. It changes nothing."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Optional

from ..context import Context
from ..core.base_choice import Candidate, Chosen, choose_base
from ..core.errors import DamagedError, PgopsError, RefusedError, UnreachableError, UsageError
from ..core.manifest import Base, Manifest
from ..core.naming import is_physical, is_plain_path, is_set_id
from ..core.recovery_target import Target
from ..core.segments import parse_lsn
from ..core.sizes import human_size
from ..core.times import parse_iso
from ..core.window import Base as WalBase
from ..places.catalog import Catalog
from ..places.chains import chain_of, failed, refuse_entwined
from ..postgres import wal_directory
from ..postgres.base_unpacking import (
    check_combine,
    unpacked_sizes,
    wal_bytes,
)
from ..postgres.debian import Cluster, cluster_of
from ..postgres.recovering import is_served, started_here
from ..postgres.throwaway import account_of, server_programs
from ..postgres.tools import Programs
from ..postgres.unproven import (
    is_marked,
    is_rest,
    kept_of,
    rests,
    size_of,
    unfinished,
)
from ..source import Source
from ..wal.holdings import base_of
from ..wal.tablespaces import made_by_wal
from .restore_command import command_of, own_command
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
    `wal_directory` is where pg_wal is to lie, inside the data directory when it is empty. `config_file` is the server's
    postgresql.conf where that lies elsewhere; Debian's is found. `leave`: whether the server is left running, or stopped, for its
    own service to start it. Of a `passing` copy, which is removed when it has served, nobody is told how it lies. Where only one
    `database` of it is asked for, what lacks another one is good enough.
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
    wal_directory: str = ""
    passing: bool = False
    database: str = ""
    config_file: str = ""
    leave: str = "running"
    confirm: str = ""
    dry_run: bool = False


@dataclass(frozen=True)
class Earlier:
    """A `target` behind which nothing was committed up to the one that was asked for, and before the removal of `databases`.

    `ended`: when the last transaction ended before both, None where none did since the base backup. `begun` are databases whose
    removal was under way where the server stopped, and may have been at `target`.
    """

    target: Target
    databases: tuple[str, ...]
    ended: Optional[datetime]
    begun: tuple[str, ...] = ()


@dataclass
class Work:
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
    to_make: list[Path] = field(default_factory=list)
    places: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    instead: Optional[Earlier] = None

    @property
    def aim(self) -> Target:
        """Where the server is to stop."""
        return self.instead.target if self.instead is not None else self.request.target

    @property
    def source(self) -> Source:
        """The set that is recovered; what it builds on comes before it in the chain."""
        return self.chain[-1]

    @property
    def data(self) -> Path:
        """Where the data directory is to be."""
        return Path(self.request.data_directory)

    @property
    def wal_alone(self) -> list[Path]:
        """Where pg_wal is to be, none for inside the data directory."""
        return [Path(self.request.wal_directory)] if self.request.wal_directory else []

    @property
    def config_file(self) -> str:
        """The server's postgresql.conf where that lies elsewhere, empty otherwise."""
        return self.request.config_file or (str(self.cluster.config_file) if self.cluster else "")

    @property
    def service(self) -> str:
        """The service of systemd that runs the server, empty where none is known."""
        return self.cluster.service if self.cluster else ""


def check(request: Request) -> None:
    if request.mode not in MODES:
        raise UsageError("%r is no mode of a recovery." % request.mode, hint="Use one of %s." % ", ".join(MODES))
    if request.leave not in LEAVES:
        raise UsageError("%r is no way to leave a server." % request.leave, hint="Use one of %s." % ", ".join(LEAVES))
    for name, path in [
        ("The data directory", request.data_directory),
        ("The directory of the socket", request.socket_directory),
        ("The directory of the WAL", request.wal_directory),
        *(("The directory of the tablespace %s" % name, path) for name, path in request.tablespaces.items()),
        *(("The directory that a tablespace has", name) for name in request.tablespaces if name.startswith("/")),
    ]:
        if (path or name == "The data directory") and not is_plain_path(path):
            raise UsageError("%s must be a path from the root without .., and %r is none." % (name, path))
    if request.set != "auto" and not (is_set_id(request.set) and is_physical(request.set)):
        raise UsageError(
            "%r names no base backup." % request.set, hint="Give an id that ends in -base or -incremental, or auto."
        )


def prepare(context: Context, request: Request) -> Work:
    catalog, manifests = _begins(context, request)
    windows, bases = None, [base for base in map(base_of, manifests.values()) if base is not None]
    if request.target.kind != "immediate" and own_command(context):
        windows = windows_of(context, bases)
    wanted = "" if request.set == "auto" else request.set
    candidates = [_candidate(m, m.base) for m in manifests.values() if m.base is not None]
    chosen = choose_base(request.target, candidates, windows, context.clock(), wanted=wanted)
    alone = request.place == "local" and windows is not None
    local = alone and _is_here(context, request.target, candidates, bases, chosen)
    key = context.config.restore.identity_file
    chain = [Source(context, catalog, m.id, identity_file=key) for m in chain_of(catalog, chosen.base.id)]
    for source in chain:
        source.check_key()
    manifest = manifests[chosen.base.id]
    if manifest.base is None:
        raise DamagedError("The manifest of %s describes no base backup." % manifest.id)
    programs = server_programs(context, manifest.server_version_num // 10000, exactly=True)
    account = account_of(context)
    immediate = request.target.kind == "immediate"
    command, refusals, blind = command_of(context, manifest, account, immediate=immediate, local=local)
    if len(chain) > 1:
        check_combine(programs)
    work = Work(request, chain, manifest.base, chosen, programs, account, {}, command, False, refusals)
    work.remarks = blind
    _check_directories(context, work)
    return work


def _begins(context: Context, request: Request) -> tuple[Catalog, dict[str, Manifest]]:
    """Return the catalog of the place that is asked for and the base backups there with which a recovery may begin.

    Raise RefusedError where there is none; UnreachableError, and others, if nobody can tell.
    """
    passed_over = list[str]()
    try:
        catalog = Catalog(context.place(request.place))
        if request.set == "auto":
            refuse_entwined(catalog, physical=True)
        manifests = dict(_manifests(context, catalog, request.set, passed_over))
    except UnreachableError as error:
        error.hint = " ".join(word for word in (error.hint, _elsewhere(context, request.place)) if word)
        raise
    if passed_over and not manifests:
        raise RefusedError(
            "No base backup in %s is taken by itself: %s." % (catalog.place.root, "; ".join(passed_over)),
            hint="Look in the other place (--place), or name the one to take (pgops recover SET, set of the module and the playbook): one"
            " whose verification failed may still do.",
        )
    if not manifests:
        raise RefusedError(
            "There is no base backup in %s." % catalog.place.root,
            hint=_elsewhere(context, catalog.place.name) or "Take one: pgops backup --kind base.",
        )
    return catalog, manifests


def _elsewhere(context: Context, asked: str) -> str:
    """Return what to say of base backups in another place than the one that was asked, empty where none is known to have any."""
    if asked == "local" and context.config.s3 is None:
        return ""
    with contextlib.suppress(PgopsError, OSError):
        other = context.place("s3" if asked == "local" else "local")
        if any(map(is_physical, Catalog(other).ids())):
            return "There are base backups in %s: --place %s." % (other.root, other.name)
    return ""


def _is_here(
    context: Context, target: Target, candidates: Sequence[Candidate], bases: Sequence[WalBase], chosen: Chosen
) -> bool:
    """Tell whether the local place has all WAL that leads to the target.

    Then no other one is asked: who chooses that place may have no other at the moment, and the server would stop at the first question.
    """
    windows = windows_of(context, bases, only="local")
    if windows is None:
        return False
    try:
        alone = choose_base(chosen.followed(target), candidates, windows, context.clock(), wanted=chosen.base.id)
    except RefusedError:
        return False
    return alone.timeline == chosen.timeline and alone.reach >= chosen.reach


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


def _check_directories(context: Context, work: Work) -> None:
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
    _check_wal(work)
    _check_rights(work)
    refusals += closed_sockets(request)
    work.remarks += [*_younger(work), *_wal_inside(work)]
    if request.config_file and not Path(request.config_file).is_file():
        refusals.append("There is no configuration file %s." % request.config_file)
    socket = "%s/.s.PGSQL.%d" % (request.socket_directory, request.port)
    if len(os.fsencode(socket)) > _LONGEST_SOCKET:
        refusals.append("The path %s is too long for a socket." % socket)
    homes = [home for home in (data, unfinished(data)) if is_marked(home, data)]
    left = {*work.places.values(), *(place for home in homes for place in made_by_wal(home).values())}
    left |= {path for path in (request.wal_directory, *map(wal_directory.outside, homes)) if path}
    work.rests = rests(data, [*work.locations.values(), *map(Path, sorted(left))])
    refusals += _lacking_room(context, work)


def _check_moved(work: Work) -> None:
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


def _check_served(work: Work, served: bool) -> None:
    work.served = served
    if served:
        work.refusals.append("A server runs on %s. Stop it first%s." % (work.data, by_service("stop", work.service)))


def _lacking_room(context: Context, work: Work) -> Iterator[str]:
    """Yield each file system that has no room for what is to lie there; what a run that was cut short left makes room."""
    sizes = unpacked_sizes(work.chain)
    homes = {"": work.data if is_fixed(work.data) else work.data.parent}
    homes.update({oid: path if path.is_dir() else path.parent for oid, path in work.locations.items()})
    needed: dict[int, list[Any]] = {}
    for place in work.wal_alone:
        homes["wal"], sizes["wal"] = place if place.is_dir() else place.parent, wal_bytes(work.source)
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


def is_fixed(data: Path) -> bool:
    """Tell whether the data directory must be filled where it lies."""
    return os.path.ismount(data) or (data.is_dir() and not os.access(data.parent, os.W_OK))


def _misplaced(data: Path) -> Iterator[str]:
    if not data.parent.is_dir():
        yield "%s does not exist, so %s cannot be made in it." % (data.parent, data.name)
    if data.is_symlink():  # it alone would be renamed, and its target started by whoever knows that
        yield "%s is a symbolic link: name the directory itself, %s." % (data, os.path.realpath(data))


def _check_cluster(work: Work) -> None:
    """Refuse what the service of a Debian cluster would not start."""
    cluster, major = work.cluster, str(work.source.manifest.server_version_num // 10000)
    if cluster is not None and cluster.version != major:
        work.refusals.append(
            "%s is the data directory of the cluster %s/%s, and the base backup is of PostgreSQL %s."
            % (work.data, cluster.version, cluster.name, major)
        )


def by_service(action: str, service: str) -> str:
    return ": systemctl %s %s" % (action, service) if service else ""


def _check_tablespaces(work: Work) -> None:
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


def _check_wal(work: Work) -> None:
    """Find out whether the WAL can lie where it is to lie."""
    taken = [*work.locations.values(), *map(Path, work.places.values())]
    for place in work.wal_alone:
        work.refusals += wal_directory.refusals(place, work.data, taken)


def _check_rights(work: Work) -> None:
    """Find the directories that this account cannot make, though another one, as root, could do so before."""
    for path in dict.fromkeys([work.data, *work.locations.values(), *map(Path, work.places.values()), *work.wal_alone]):
        if not os.path.lexists(path) and path.parent.is_dir() and not os.access(path.parent, os.W_OK | os.X_OK):
            work.to_make.append(path)
            work.refusals.append(
                "%s does not belong to this account, so %s cannot be made in it: make it first, as this account's."
                % (path.parent, path.name)
            )


def closed_sockets(request: Request) -> Iterator[str]:
    """Yield why the socket of a copy cannot lie in the directory that was named."""
    path = Path(request.socket_directory)
    if request.mode != "beside" or not request.socket_directory:
        return
    if path.is_dir():
        if path.stat().st_mode & 0o077:
            yield (
                "Others can reach the socket in %s, and the copy lets everybody in who can: name a directory of mode 0700."
                % path
            )
        elif not os.access(path, os.W_OK | os.X_OK):
            yield "%s does not belong to this account, so no socket can lie in it." % path
    elif os.path.lexists(path):
        yield "%s is no directory, so no socket can lie in it." % path
    elif not path.parent.is_dir():
        yield "%s does not exist, so no socket can lie in %s." % (path.parent, path.name)
    elif not os.access(path.parent, os.W_OK | os.X_OK):
        yield "%s does not belong to this account, so no socket can lie in %s." % (path.parent, path.name)


def _wal_inside(work: Work) -> Iterator[str]:
    """Yield that pg_wal will lie inside the data directory, where the original has it elsewhere."""
    replaced = wal_directory.outside(work.data) if work.replaces and not is_rest(work.data) else ""
    before = replaced or work.base.wal_directory
    if before and not work.wal_alone and not work.request.passing:
        yield (
            "The original has its WAL in a directory of its own (pg_wal leads to %s); here pg_wal will lie inside the data directory,"
            " on its disk. To have it elsewhere, give it an empty directory: --waldir DIR (waldir of the module and the playbook).%s"
            % (before, " That one stays with the data directory that is kept." if replaced else "")
        )


def _younger(work: Work) -> Iterator[str]:
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


REST = "What a recovery that was cut short left in %s is removed: it was never proven, and nobody could write into it."


def plan(work: Work) -> dict[str, Any]:
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
        "to_make": [str(path) for path in work.to_make],
        "served": work.served,
        "service": work.service,
        "bytes": work.base.bytes + wal_bytes(work.source),
        "stored_bytes": sum(source.manifest.size for source in work.chain),
        "chain": [source.set_id for source in work.chain[:-1]],
        "wal_directory": request.wal_directory,
        "original_wal_directory": work.base.wal_directory,
        "tablespaces": {**{t.name: str(work.locations[t.oid]) for t in work.base.tablespaces}, **work.places},
        "remarks": [*work.chosen.remarks, *work.remarks, *map(REST.__mod__, work.rests)],
        "refusals": work.refusals,
    }


__all__ = (
    "LEAVES",
    "MODES",
    "REST",
    "Earlier",
    "Request",
    "Work",
    "by_service",
    "check",
    "closed_sockets",
    "is_fixed",
    "plan",
    "prepare",
)
