# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Is the WAL archived, off the server, without gaps, and for how long will there be room? Pure: facts in, findings out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Optional

from .freshness import CRITICAL, OK, WARNING, Finding
from .sizes import human_size
from .times import human_span, iso

_SOON, _AT_ONCE = timedelta(days=1), timedelta(hours=2)
_SEGMENT = 16 * 1024 * 1024  # PostgreSQL's default, where the server does not say
_APART = timedelta(minutes=1)  # clocks that differ by less do no harm


@dataclass(frozen=True)
class ServerWal:
    """What the server says of its archiving. Moments are None where there is none yet; `ready` counts what waits in pg_wal.

    `ahead_seconds` is by how much its clock is ahead of this host's (negative: behind); `unsettled` is what a recovery left to do in its
    data directory, as a sentence.
    """

    archive_mode: str
    archive_command: str
    archive_timeout: int
    segment_size: int
    lag_bytes: int
    last_archived: str
    last_archived_time: Optional[datetime]
    last_failed: str
    last_failed_time: Optional[datetime]
    failed_count: int
    ready: Optional[int]
    ready_since: Optional[datetime]
    in_recovery: bool = False
    system_identifier: str = ""
    timeline: Optional[int] = None
    ahead_seconds: float = 0.0
    unsettled: str = ""
    archive_library: str = ""

    @property
    def failing(self) -> bool:
        """Whether the newest attempt to archive failed."""
        if self.last_failed_time is None:
            return False
        return self.last_archived_time is None or self.last_failed_time > self.last_archived_time


@dataclass(frozen=True)
class Shipping:
    """How the copying to S3 fares: the files that wait, why if it failed, and when it said so (None: never).

    `contested` are the names of which S3 has other content than this host.
    """

    pending: int
    pending_bytes: int
    pending_since: Optional[datetime]
    error: str
    failing_since: Optional[datetime]
    when: Optional[datetime] = None
    contested: Sequence[str] = ()


@dataclass(frozen=True)
class Room:
    """A disk that WAL fills: free bytes, those that must stay free, and how fast WAL comes, in bytes per second."""

    free: int
    floor: int
    growth: float

    @property
    def full_in(self) -> Optional[timedelta]:
        """How long it lasts if nothing is removed; None when nothing comes."""
        if self.growth <= 0:
            return None
        return timedelta(seconds=min(max(0, self.free - self.floor) / self.growth, 10**9))


@dataclass(frozen=True)
class Holding:
    """One place: what keeps it from being read, its gaps and contradictions, and whether a base backup can begin a recovery.

    `damaged` are the names of WAL files that were read and are not whole; `bases` the (system identifier, timeline) of base
    backups, `stranded` those of timelines of which it has WAL and neither the history nor a base backup, `newest` is when its newest
    segment was written, `disputed` are timelines of which another place has another history.
    """

    place: str
    error: str = ""
    gaps: Sequence[str] = ()
    contradictions: Sequence[str] = ()
    recoverable_to: Optional[datetime] = None
    segments: int = 0
    damaged: Sequence[str] = ()
    bases: Sequence[tuple[str, int]] = ()
    stranded: Sequence[tuple[str, int]] = ()
    newest: Optional[datetime] = None
    disputed: Sequence[tuple[str, int]] = ()


@dataclass(frozen=True)
class Bounds:
    """How old WAL may become before it is safe, how much of it may wait, and how often it is shipped."""

    lag: timedelta
    backlog: int
    ship_every: timedelta = timedelta(0)


def judge(
    server: Optional[ServerWal],
    server_error: str,
    shipping: Optional[Shipping],
    room: Room,
    holdings: Sequence[Holding],
    bounds: Bounds,
    now: datetime,
    *,
    own_disk: Optional[Room] = None,
) -> list[Finding]:
    """Return the findings about the WAL archive; `shipping` is None where there is no S3 place.

    `room` is the disk of the spool, `own_disk` that of the server's pg_wal with the pace of what is not archived, None where
    nobody can tell.
    """
    found: list[Finding] = []
    if server is None:
        found.append(Finding("wal server", WARNING, "How the server archives is unknown: %s" % server_error))
    else:
        found += _server(server, bounds, now)
        stranded = list(_stranded(server, holdings))
        found += stranded
        if server.unsettled:  # a base backup is what ends that, too
            found.append(Finding("wal timeline", WARNING, server.unsettled))
        elif not stranded:
            found += _timeline(server, holdings)
        if own_disk is not None and (server.failing or server.lag_bytes > bounds.backlog):
            found.append(_own_disk(own_disk))
        found += _clock(server)
    if shipping is not None:
        found.append(_shipping(shipping, bounds, now))
        found += _contested(shipping)
    found.append(_room(room, server.segment_size if server is not None else _SEGMENT))
    found += _disputed(holdings)
    somewhere = any(holding.recoverable_to is not None for holding in holdings)
    for holding in holdings:
        found += _holding(holding, somewhere, now, bounds)
    return found


def _server(server: ServerWal, bounds: Bounds, now: datetime) -> Iterator[Finding]:
    if server.archive_mode not in ("on", "always"):
        text = "The server does not archive its WAL (archive_mode is %s)." % server.archive_mode
        yield Finding("wal archive", CRITICAL, text)
        return
    if server.archive_library:  # since PostgreSQL 15; beside it no command is called
        text = (
            "archive_library is %s, beside which the server calls no archive_command: take it out (ALTER SYSTEM RESET"
            " archive_library, or in postgresql.conf), and reload." % server.archive_library
        )
        yield Finding("wal archive", CRITICAL, text)
    elif "wal archive" not in server.archive_command:
        yield Finding("wal archive", CRITICAL, "archive_command does not call pgops wal archive.")
    elif server.failing:
        text = "The server cannot archive %s (%d failures so far); its log says why." % (
            server.last_failed,
            server.failed_count,
        )
        yield Finding("wal archive", CRITICAL, text, since=server.last_failed_time)
    else:
        yield _backlog(server, bounds, now)
    if server.archive_timeout == 0 and not server.in_recovery:
        text = "archive_timeout is 0: a quiet server may keep its newest transactions to itself for hours."
        yield Finding("wal timeout", WARNING, text)


def _clock(server: ServerWal) -> Iterator[Finding]:
    ahead = server.ahead_seconds
    if abs(ahead) > _APART.total_seconds():
        text = (
            "The server's clock is %s %s this host's. Recoveries go by the server's, ages by this host's, so those shown here are"
            " wrong by as much. Set both clocks (timedatectl)."
            % (human_span(abs(ahead)), "ahead of" if ahead > 0 else "behind")
        )
        yield Finding("wal clock", WARNING, text)


def behind(recoverable_to: Optional[datetime], now: datetime) -> tuple[Optional[float], Optional[float]]:
    """Return how old the newest WAL that can be recovered is, or else by how much it is ahead of the clock here, in seconds.

    Of WAL from the future nobody can say how old it is. Both are None where nothing can be recovered.
    """
    if recoverable_to is None:
        return None, None
    age = round((now - recoverable_to).total_seconds(), 3)
    if age < -_APART.total_seconds():
        return None, -age
    return max(0.0, age), None


def _backlog(server: ServerWal, bounds: Bounds, now: datetime) -> Finding:
    waiting = server.ready or 0
    age = now - server.ready_since if waiting and server.ready_since else timedelta(0)
    said = "%s of WAL are not archived yet" % human_size(server.lag_bytes)
    if waiting > 1:
        said += "; %d files wait, the oldest for %s" % (waiting, human_span(max(0.0, age.total_seconds())))
    much = server.lag_bytes > bounds.backlog
    severity = WARNING if much or age > bounds.lag else OK
    return _waiting("wal archive", severity, said + ".", server.last_archived_time, age, bounds, much=much)


def _waiting(
    check: str, severity: str, text: str, since: Optional[datetime], age: timedelta, bounds: Bounds, *, much: bool
) -> Finding:
    """Return a finding about WAL that waits; where it is too much, its age is not what the finding is about."""
    if much:
        return Finding(check, severity, text, since=since)
    return Finding(check, severity, text, since, max(0.0, age.total_seconds()), bounds.lag.total_seconds())


def _shipping(shipping: Shipping, bounds: Bounds, now: datetime) -> Finding:
    if shipping.when is not None and now - shipping.when > bounds.lag + bounds.ship_every:
        # What it said then is no news of what was archived since.
        text = (
            "Whether the WAL is in S3 is unknown, as the shipping last ran at %s, %s ago. Start pgops wal ship --loop."
            % (
                iso(shipping.when),
                human_span((now - shipping.when).total_seconds()),
            )
        )
        if shipping.error:
            text += " It failed then: %s" % shipping.error
        return Finding("wal shipping", WARNING, text, since=shipping.when)
    if not shipping.pending:
        if shipping.error:
            return Finding("wal shipping", WARNING, "The newest shipping failed: %s" % shipping.error)
        return Finding("wal shipping", OK, "All archived WAL is in S3.")
    said = "%d files (%s) of WAL wait for S3" % (shipping.pending, human_size(shipping.pending_bytes))
    age = now - shipping.pending_since if shipping.pending_since else timedelta(0)
    much = shipping.pending_bytes > bounds.backlog
    late = much or age > bounds.lag
    why = ": %s" % shipping.error if shipping.error else "; does pgops wal ship run?" if late else "."
    severity = WARNING if late else OK
    return _waiting("wal shipping", severity, said + why, shipping.pending_since, age, bounds, much=much)


def _contested(shipping: Shipping) -> Iterator[Finding]:
    if shipping.contested:
        text = (
            "S3 has other content than this host under the name of %s. Two servers archive to it, and what this one archives under"
            " such names is not sent: no recovery from S3 follows this server from there on." % shipping.contested[0]
        )
        yield Finding("wal contradiction", CRITICAL, text)


def _room(room: Room, segment_size: int) -> Finding:
    if room.free < segment_size:
        text = "%s are free for WAL, and a segment may need more: what does not fit is not archived."
        return Finding("wal room", CRITICAL, text % human_size(room.free))
    full_in = room.full_in
    if full_in is None:
        return Finding("wal room", OK, "%s are free for WAL." % human_size(room.free))
    text = "%s are free for WAL; at %s an hour they last %s." % (
        human_size(room.free),
        human_size(room.growth * 3600),
        human_span(full_in.total_seconds()),
    )
    severity = CRITICAL if full_in < _AT_ONCE else WARNING if full_in < _SOON else OK
    return Finding("wal room", severity, text)


def _own_disk(room: Room) -> Finding:
    """Judge the disk of pg_wal while WAL piles up there: the server stops when it is full."""
    full_in = room.full_in
    if full_in is None:
        return Finding("wal room", OK, "%s are free for WAL that is not archived." % human_size(room.free))
    text = (
        "WAL that is not archived stays in pg_wal, whose disk has %s free; at %s an hour it is full in %s, and the server stops."
        % (human_size(room.free), human_size(room.growth * 3600), human_span(full_in.total_seconds()))
    )
    severity = CRITICAL if full_in < _AT_ONCE else WARNING if full_in < _SOON else OK
    return Finding("wal room", severity, text)


def _stranded(server: ServerWal, holdings: Sequence[Holding]) -> Iterator[Finding]:
    """Judge whether the timeline that the server is on can be followed where its WAL lies."""
    for holding in holdings:
        if not holding.error and (server.system_identifier, server.timeline) in holding.stranded:
            text = (
                "%s holds WAL of timeline %d, which the server is on, but not its history, so nothing since the switch can be recovered."
                " Hand it over, in the data directory, as its account: pgops wal archive pg_wal/%08X.history"
                % (holding.place, server.timeline or 0, server.timeline or 0)
            )
            yield Finding("wal history", CRITICAL, text)


def _disputed(holdings: Sequence[Holding]) -> Iterator[Finding]:
    """Judge whether the places tell the same of where timelines began."""
    for system, timeline in sorted({one for holding in holdings for one in holding.disputed}):
        name = "%08X.history" % timeline
        text = (
            "The places hold different histories of timeline %d of the cluster %s (%s): two servers were promoted to it, and archive to"
            " one place. No recovery is known to get across that switch. Stop the archiving of one, and take a base backup of the other;"
            " of the stored files, the one that is not what that server has as pg_wal/%s has to go."
            % (timeline, system, name, name)
        )
        yield Finding("wal contradiction", CRITICAL, text)


def _timeline(server: ServerWal, holdings: Sequence[Holding]) -> Iterator[Finding]:
    """Judge whether a base backup has been taken since the server changed its timeline, where every place tells."""
    if server.timeline is None or any(holding.error for holding in holdings):
        return
    found = [timeline for held in holdings for system, timeline in held.bases if system == server.system_identifier]
    if found and max(found) < server.timeline:
        text = (
            "The server is on timeline %d, after a failover or a recovery, and the newest base backup is of timeline %d: "
            "until there is one of the new timeline, each recovery has to get across the switch."
            % (server.timeline, max(found))
        )
        yield Finding("wal timeline", WARNING, text)


def _holding(holding: Holding, somewhere: bool, now: datetime, bounds: Bounds) -> Iterator[Finding]:
    if holding.error:
        yield Finding(
            "wal %s" % holding.place, WARNING, "The WAL in %s is unknown: %s" % (holding.place, holding.error)
        )
        return
    if holding.contradictions:
        text = "%s holds different files under one name: %s. Two servers archive to it." % (
            holding.place,
            ", ".join(holding.contradictions[:3]),
        )
        yield Finding("wal contradiction", CRITICAL, text)
    if holding.gaps:
        text = "WAL is missing in %s: %s. No recovery gets across; take a new base backup." % (
            holding.place,
            ", ".join(holding.gaps[:3]),
        )
        yield Finding("wal gap", WARNING, text)
    if holding.damaged:
        text = "WAL in %s is damaged: %s%s. No recovery from there gets across; take a new base backup." % (
            holding.place,
            ", ".join(holding.damaged[:3]),
            " and %d more" % (len(holding.damaged) - 3) if len(holding.damaged) > 3 else "",
        )
        yield Finding("wal damaged", WARNING, text)
    if holding.recoverable_to is not None:
        text = "%s can bring the server back up to %s." % (holding.place, iso(holding.recoverable_to))
        told = holding.gaps or holding.damaged or holding.contradictions or holding.stranded or holding.disputed
        lost = holding.newest - holding.recoverable_to if holding.newest is not None and not told else timedelta(0)
        late = lost > bounds.lag + bounds.ship_every
        if late:
            text = text[:-1] + ", though it holds WAL that is %s younger: no base backup leads to that." % human_span(
                lost.total_seconds()
            )
        yield Finding("wal window", WARNING if late else OK, text)
        ahead = behind(holding.recoverable_to, now)[1]
        if ahead is not None:
            text = (
                "The newest WAL in %s bears a time that is %s ahead of this host's clock, so how much would be lost now is unknown."
                " Set the clocks of this host, of the server and of the store." % (holding.place, human_span(ahead))
            )
            yield Finding("wal clock", WARNING, text)
    elif holding.segments and not somewhere:
        text = "%s holds WAL, but no base backup that it could be replayed on." % holding.place
        yield Finding("wal window", WARNING, text)


__all__ = ("Bounds", "Holding", "Room", "ServerWal", "Shipping", "behind", "judge")
