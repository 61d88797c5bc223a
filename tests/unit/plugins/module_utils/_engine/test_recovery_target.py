# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a recovery stops: what names one target, which base backup reaches it, and what counts as proof."""

from __future__ import annotations

import dataclasses
import re
import zoneinfo
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.base_choice import Candidate, choose_base
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import RefusedError, UsageError
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.recovery_end import (
    Stopped,
    doubts,
    paused_at_the_end,
    prefix_of,
    said_at_the_end,
    spoken,
    transaction_ahead,
    why_short,
)
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.recovery_target import Target, parse_target
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.segments import segment_name, show_lsn
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.window import Base, windows

NOW = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)
SIZE = 16 * 1024 * 1024
SYSTEM = "7300000000000000001"


def zone(name: str) -> Any:
    return zoneinfo.ZoneInfo(name)


def at(hours: float) -> datetime:
    """A moment so many hours before now."""
    return NOW - timedelta(hours=hours)


def base(number: int, hours: float, **others: Any) -> Candidate:
    """A base backup that began in the segment `number` and ended there, so many hours ago; 100 transactions a segment."""
    facts = {
        "id": at(hours).strftime("%Y%m%dT%H%M%SZ-base"),
        "system_identifier": SYSTEM,
        "timeline": 1,
        "end": number * SIZE + 0x120,
        "stopped": at(hours),
        "next_xid": 1000 + number * 100,
    }
    return Candidate(**{**facts, **others})


def archive(
    bases: list[Candidate], segments: dict[int, float], *, timeline: int = 1, arrived: bool = False
) -> list[Any]:
    """The windows of an archive of these segments, each archived so many hours ago."""
    known = [Base(b.id, b.system_identifier, b.timeline, b.end // SIZE * SIZE, b.end, b.stopped) for b in bases]
    system = bases[0].system_identifier
    names = {segment_name(timeline, number, SIZE): at(hours) for number, hours in segments.items()}
    return windows(system, known, names, {}, SIZE, arrived=names if arrived else ())


# --- what a person asks for -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-22T14:31:07+01:00", datetime(2026, 11, 22, 13, 31, 7, tzinfo=UTC)),
        ("2026-11-22T14:31:07Z", datetime(2026, 11, 22, 14, 31, 7, tzinfo=UTC)),
        ("2026-11-22 14:31:07 Europe/Berlin", datetime(2026, 11, 22, 13, 31, 7, tzinfo=UTC)),
        ("2026-07-22 14:31:07 Europe/Berlin", datetime(2026, 7, 22, 12, 31, 7, tzinfo=UTC)),
        ("2026-11-22 14:31:07 UTC", datetime(2026, 11, 22, 14, 31, 7, tzinfo=UTC)),
    ],
)
def test_a_moment_has_an_offset_or_a_zone(text: str, moment: datetime) -> None:
    target = parse_target({"time": text}, zone=zone)
    assert target.moment == moment
    assert target.settings()["recovery_target_time"] == moment.isoformat()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("2026-11-22 14:31:07", "no offset from UTC"),
        ("yesterday", "is not a moment"),
        ("2026-11-22 14:31:07 EDT", "'EDT' is no time zone"),
        ("2026-11-22 14:31:07 EST", "'EST' is no time zone"),
        ("2026-11-22 14:31:07 Europe/Atlantis", "is no time zone"),
        ("noon Europe/Berlin", "is not a moment"),
        ("2026-11-22T14:31:07+01:00 Europe/Berlin", "an offset and a time zone"),
        ("2026-10-25 02:30:00 Europe/Berlin", "showed 2026-10-25 02:30:00 twice"),
        ("2026-03-29 02:30:00 Europe/Berlin", "showed 2026-03-29 02:30:00 never"),
    ],
)
def test_what_names_no_single_moment_is_refused(text: str, said: str) -> None:
    def known(name: str) -> Any:
        try:
            return zone(name)
        except zoneinfo.ZoneInfoNotFoundError:
            raise UsageError("no zone") from None

    with pytest.raises(UsageError, match=re.escape(said)):
        parse_target({"time": text}, zone=known)


@pytest.mark.parametrize(
    ("given_", "options", "said"),
    [
        ({}, {}, "No target was given"),
        ({"time": "2026-11-22T14:31:07Z", "lsn": "0/1"}, {}, "Several targets were given: time, lsn"),
        ({"lsn": "0-1"}, {}, "is no LSN"),
        ({"xid": "two"}, {}, "is no transaction"),
        ({"xid": "2"}, {}, "is no transaction"),
        ({"xid": "18446744073709551620"}, {}, "is no transaction"),
        ({"name": "x" * 64}, {}, "cannot name a restore point"),
        ({"name": "a\nb"}, {}, "cannot name a restore point"),
        ({"end": "yes"}, {"timeline": "newest"}, "is no timeline"),
        ({"end": "yes"}, {"timeline": "0"}, "is no timeline"),
        ({"end": "yes"}, {"action": "shutdown"}, "is no action"),
    ],
)
def test_what_is_no_target_is_refused(given_: dict[str, str], options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_target(given_, **options)


@pytest.mark.parametrize(
    ("given_", "wanted", "shown"),
    [
        ({"lsn": "16/b374d848"}, ("recovery_target_lsn", "16/B374D848"), "the LSN 16/B374D848"),
        ({"xid": "4711"}, ("recovery_target_xid", "4711"), "the transaction 4711"),
        ({"name": "before it"}, ("recovery_target_name", "before it"), "the restore point 'before it'"),
        ({"immediate": "yes"}, ("recovery_target", "immediate"), "the end of the base backup"),
        ({"end": "yes"}, ("recovery_target", ""), "the end of the WAL"),
    ],
)
def test_exactly_one_setting_names_the_target_and_it_comes_last(
    given_: dict[str, str], wanted: tuple[str, str], shown: str
) -> None:
    target = parse_target(given_, inclusive=False, timeline="3", action="pause")
    settings = target.settings()
    names = (
        "recovery_target",
        "recovery_target_time",
        "recovery_target_lsn",
        "recovery_target_xid",
        "recovery_target_name",
    )
    assert [settings[name] for name in names if settings[name]] == [value for _n, value in [wanted] if value]
    assert settings[wanted[0]] == wanted[1]
    if wanted[1]:
        order = [name for name in settings if name in names]
        assert order[-1] == wanted[0]
    assert settings["recovery_target_inclusive"] == "off"
    assert settings["recovery_target_timeline"] == ("current" if target.kind == "immediate" else "3")
    assert settings["recovery_target_action"] == "pause"
    assert target.shown == shown


# --- which base backup ------------------------------------------------------------------------------------------------


def test_the_newest_base_backup_before_the_target_is_taken() -> None:
    bases = [base(10, 30), base(20, 20), base(30, 10)]
    assert choose_base(Target("time", at(15)), bases, None, NOW).base == bases[1]
    assert choose_base(Target("time", at(20)), bases, None, NOW).base == bases[1]
    assert choose_base(Target("lsn", position=25 * SIZE), bases, None, NOW).base == bases[1]
    assert choose_base(Target("xid", xid=3000), bases, None, NOW).base == bases[1]
    assert choose_base(Target("end"), bases, None, NOW).base == bases[2]
    assert choose_base(Target("immediate"), bases, None, NOW).base == bases[2]
    chosen = choose_base(Target("name", name="x"), bases, None, NOW)
    assert chosen.base == bases[0]
    assert "oldest base backup is taken" in chosen.remarks[1]
    assert choose_base(Target("name", name="x"), bases, None, NOW, wanted=bases[1].id).base == bases[1]


def test_a_restore_point_is_looked_for_behind_the_last_gap() -> None:
    """The oldest base backup comes before it, and a gap that is known cuts it off from the end of the WAL."""
    bases = [base(10, 30), base(14, 26), base(20, 20), base(24, 16)]
    held = archive(bases, {n: 40 - n for n in range(10, 30) if n != 17})
    target, missing = Target("name", name="x"), segment_name(1, 17, SIZE)
    chosen = choose_base(target, bases, held, NOW)
    assert chosen.base == bases[2]
    assert "that no gap cuts off" in chosen.remarks[0]
    assert "an older one if it lies before the gap" in chosen.remarks[0]
    assert "the first one behind the base backup is meant" in chosen.remarks[1]
    assert len(chosen.remarks) == 2
    # Whoever knows that it lies before the gap names one; so does who does not, and is told.
    named = choose_base(target, bases, held, NOW, wanted=bases[0].id)
    assert "%s to %s (1) are missing" % (missing, missing) in named.remarks[-1]
    # The WAL breaks off behind the newest base backup: from there at least up to the last gap.
    more = archive(bases, {n: 40 - n for n in range(10, 30) if n not in (17, 26)})
    chosen = choose_base(target, bases, more, NOW)
    assert chosen.base == bases[2]
    assert segment_name(1, 26, SIZE) in chosen.remarks[-1]
    # A transaction: the newest one that comes before it, and the gap is told.
    (said,) = choose_base(Target("xid", xid=2450), bases, held, NOW).remarks
    assert missing in said
    assert "the transaction 2450 is found only if it lies before that" in said
    assert choose_base(Target("xid", xid=3450), bases, held, NOW).remarks == ()
    # A moment, where only the time is known at which the WAL came to its place: long after it had been written.
    late = archive(bases, {n: 1 if n in (25, 26) else 40 - n for n in range(10, 30) if n != 27}, arrived=True)
    chosen = choose_base(Target("time", at(13.5)), bases[:2], late, NOW)
    (said,) = chosen.remarks
    missing = segment_name(1, 27, SIZE)
    assert "%s to %s (1) are missing" % (missing, missing) in said
    assert "the moment %s is found only if it lies before that" % at(13.5).isoformat() in said
    hint = why_short(Target("time", at(13.5)), chosen.gap)
    assert "%s to %s (1) are missing. Bring them back" % (missing, missing) in hint
    known = archive(bases, {n: 40 - n for n in range(10, 30) if n != 27})
    assert choose_base(Target("time", at(15)), bases[:2], known, NOW).remarks == ()


def test_what_to_ask_for_where_the_wal_ended_depends_on_the_target() -> None:
    said = {
        Target("time", at(1)): "nothing was committed after that moment. Ask for an earlier one, or for the end",
        Target("xid", xid=7): "or be part of another one",
        Target("name", name="x"): "upper and lower case differ",
        Target("lsn", position=7): "no record begins at that LSN or behind it",
    }
    for target, text in said.items():
        assert text in why_short(target).replace("have ended before, or be", "or be")


def test_behind_the_last_byte_of_the_archive_no_recovery_stops() -> None:
    bases = [base(10, 30)]
    held = archive(bases, {n: 40 - n for n in range(10, 13)})
    for inclusive in (True, False):
        with pytest.raises(RefusedError, match="it stops only where a record begins: ask for the end"):
            choose_base(Target("lsn", position=13 * SIZE, inclusive=inclusive), bases, held, NOW)
    assert choose_base(Target("lsn", position=13 * SIZE - 8), bases, held, NOW).base == bases[0]


def test_the_transaction_before_which_it_stopped_is_read_from_its_words() -> None:
    for log, xid in [
        ("recovery stopping before commit of transaction 758, time 2026-11-27 11:16:12.761866+00", "758"),
        ("recovery stopping before abort of prepared transaction 7, time 2026-11-27 11:16:12+00", "7"),
        ("recovery stopping after commit of transaction 758, time 2026-11-27 11:16:12.761866+00", ""),
        ('recovery stopping before WAL location (LSN) "0/3000000"', ""),
        ("", ""),
    ]:
        assert transaction_ahead(log) == xid


def test_a_moment_that_came_twice_as_the_clock_was_set_back_is_told() -> None:
    """PostgreSQL stops at the first commit behind it, and nothing that it says afterwards shows that more came before the target."""
    bases = [base(10, 30), base(20, 20)]
    # From segment 15 on the clock was five hours ahead, and with segment 18 it was right again.
    hours = {n: 40.0 - n for n in range(10, 30)} | {n: 35.0 - n for n in range(15, 18)}
    held = archive(bases, hours)
    for hour, told in [(20.5, True), (18.5, True), (23.0, False), (17.5, False), (24.0, False)]:
        chosen = choose_base(Target("time", at(hour)), bases[:1], held, NOW)
        (remark,) = [text for text in chosen.remarks if "came twice" in text] or [""]
        assert ("near the LSN %s" % show_lsn(18 * SIZE) in remark) is told, hour
    assert not any("came twice" in text for text in choose_base(Target("end"), bases[:1], held, NOW).remarks)
    # What S3 alone has tells when it came there, and a base backup behind that is none the worse.
    there = archive(bases, hours, arrived=True)
    assert not any("twice" in text for text in choose_base(Target("time", at(20.5)), bases[:1], there, NOW).remarks)
    assert not any("twice" in text for text in choose_base(Target("time", at(18.5)), bases, held, NOW).remarks)


def test_where_wal_may_end_because_nothing_was_committed_any_more() -> None:
    bases = [base(10, 30), base(20, 20)]
    whole = archive(bases, {n: 40 - n for n in range(10, 30)})
    target = Target("time", at(12))
    chosen = choose_base(target, bases, whole, NOW)
    assert chosen.whole_until == at(11)
    assert chosen.may_be_quiet(target)
    assert not chosen.may_be_quiet(Target("time", at(10)))
    assert not chosen.may_be_quiet(Target("lsn", position=25 * SIZE))
    assert not choose_base(target, bases, None, NOW).may_be_quiet(target)
    # S3 had been gone: what it got after the moment was written before it, and what came later was lost.
    late = choose_base(target, bases, archive(bases, {n: 40 - n for n in range(10, 30)}, arrived=True), NOW)
    assert (late.reach, late.whole_until) == (30 * SIZE, None)
    assert not late.may_be_quiet(target)
    # It may have been committed in what is missing.
    broken = archive(bases, {n: 40 - n for n in range(10, 30) if n != 29} | {30: 10})
    cut = choose_base(Target("time", at(12)), bases, broken, NOW)
    assert cut.reach == 29 * SIZE
    assert not cut.may_be_quiet(Target("time", at(12)))


UPGRADED = {"system_identifier": "7300000000000000002"}


def upgraded() -> tuple[list[Candidate], list[Any]]:
    """Two base backups of a cluster and two of the one that it was upgraded to, and the windows of both."""
    old, new = [base(10, 30), base(20, 20)], [base(3, 10, **UPGRADED), base(5, 8, **UPGRADED)]
    held = archive(old, {n: 40 - n for n in range(10, 26)}) + archive(new, {n: 13 - n for n in range(3, 12)})
    return [*old, *new], held


@pytest.mark.parametrize(
    "target", [Target("lsn", position=11 * SIZE), Target("xid", xid=2100), Target("name", name="before")]
)
@pytest.mark.parametrize("known", [True, False])
def test_what_may_lie_in_two_clusters_is_refused_until_one_is_named(target: Target, known: bool) -> None:
    bases, held = upgraded()
    with pytest.raises(RefusedError, match="may lie in the cluster") as told:
        choose_base(target, bases, held if known else None, NOW)
    assert "pgops recover SET" in told.value.hint
    for one in (bases[0], bases[2]):
        chosen = choose_base(target, bases, held if known else None, NOW, wanted=one.id)
        assert chosen.base == one
        assert "is of the cluster %s" % one.system_identifier in chosen.remarks[0]


def test_what_can_only_lie_in_one_of_two_clusters_is_recovered_and_the_cluster_told() -> None:
    bases, held = upgraded()
    for target, wanted in (
        (Target("lsn", position=25 * SIZE), bases[1]),
        (Target("lsn", position=5 * SIZE + 0x200), bases[3]),
        (Target("xid", xid=1450), bases[2]),
        (Target("time", at(16)), bases[1]),
        (Target("time", at(5)), bases[3]),
        (Target("end"), bases[3]),
    ):
        chosen = choose_base(target, bases, held, NOW)
        assert chosen.base == wanted
        assert "is of the cluster %s" % wanted.system_identifier in chosen.remarks[0]


def test_a_clock_that_is_slow_hides_no_moment_that_the_archive_has() -> None:
    bases = [base(10, 30)]
    held = archive(bases, {n: 40 - n for n in range(10, 30)})
    slow = at(13)
    assert choose_base(Target("time", at(12)), bases, held, slow).base == bases[0]
    for target, windows_ in ((Target("time", at(10)), held), (Target("time", at(12)), None)):
        with pytest.raises(RefusedError, match="lies in the future"):
            choose_base(target, bases, windows_, slow)


def test_a_short_transaction_number_is_of_the_epoch_of_the_base_backup() -> None:
    bases = [base(10, 30, next_xid=(5 << 32) + 1000)]
    assert choose_base(Target("xid", xid=1000), bases, None, NOW).base == bases[0]
    assert choose_base(Target("xid", xid=(5 << 32) + 1000), bases, None, NOW).base == bases[0]
    with pytest.raises(RefusedError, match="may have ended before"):
        choose_base(Target("xid", xid=999), bases, None, NOW)
    # The WAL has short numbers only: the server would stop at that of this epoch.
    assert choose_base(Target("xid", xid=(6 << 32) + 999), bases, None, NOW).base == bases[0]
    with pytest.raises(RefusedError, match="would stop at another one"):
        choose_base(Target("xid", xid=(6 << 32) + 1000), bases, None, NOW)


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (Target("time", at(31)), "it was whole at 2026-11-21T02:00:00"),
        (Target("time", NOW + timedelta(seconds=1)), "lies in the future"),
        (Target("lsn", position=10 * SIZE), "it was whole at the LSN 0/A000120 only"),
        (Target("xid", xid=1999), "may have ended before"),
    ],
)
def test_what_lies_outside_is_refused_with_every_reason(target: Target, said: str) -> None:
    with pytest.raises(RefusedError, match=re.escape(said)):
        choose_base(target, [base(10, 30), base(20, 20)], None, NOW)


def test_without_a_base_backup_and_with_an_unknown_one() -> None:
    with pytest.raises(RefusedError, match="There is no base backup"):
        choose_base(Target("end"), [], None, NOW)
    with pytest.raises(RefusedError, match="There is no base backup other"):
        choose_base(Target("end"), [base(10, 30)], None, NOW, wanted="other")
    many = [base(n, 100 - n) for n in range(10, 30)]
    with pytest.raises(RefusedError, match="and 10 more"):
        choose_base(Target("lsn", position=SIZE), many, None, NOW)


def test_a_gap_is_named_and_an_older_base_backup_does_not_help() -> None:
    bases = [base(10, 30), base(20, 20)]
    held = archive(bases, {n: 40 - n for n in range(10, 30) if n != 25})
    before = choose_base(Target("lsn", position=24 * SIZE), bases, held, NOW)
    assert before.base == bases[1]
    missing = segment_name(1, 25, SIZE)
    for target in (Target("lsn", position=27 * SIZE), Target("time", at(12)), Target("end")):
        with pytest.raises(RefusedError, match="%s to %s .1. are missing" % (missing, missing)):
            choose_base(target, bases, held, NOW)
    assert choose_base(Target("end", to_gap=True), bases, held, NOW).base == bases[1]
    assert choose_base(Target("immediate"), bases, held, NOW).base == bases[1]


def test_where_the_newest_base_backup_lacks_wal_an_older_one_may_reach_the_target() -> None:
    bases = [base(10, 30), base(20, 20)]
    broken = dataclasses.replace(bases[1], timeline=7)  # of a timeline of which the archive has nothing
    held = archive([bases[0]], {n: 40 - n for n in range(10, 30)})
    assert choose_base(Target("time", at(15)), [bases[0], broken], held, NOW).base == bases[0]


def test_what_is_not_archived_yet_is_told() -> None:
    bases = [base(10, 30)]
    held = archive(bases, {n: 40 - n for n in range(10, 30)})
    with pytest.raises(RefusedError, match="the archive holds WAL for it up to 2026-11-21T21:00:00"):
        choose_base(Target("time", at(1)), bases, held, NOW)
    with pytest.raises(RefusedError, match="holds no WAL for it"):
        choose_base(Target("end"), bases, [], NOW)
    with pytest.raises(RefusedError, match="on timeline 4"):
        choose_base(Target("end", timeline="4"), bases, held, NOW)
    assert choose_base(Target("end", timeline="current"), bases, held, NOW).base == bases[0]


def branched(bases: list[Candidate], left: int = 15, until: int = 20) -> list[Any]:
    """Timeline 1 up to the segment `until`; timeline 2 left it in the midst of `left`, ten hours after the first was archived."""
    known = [Base(b.id, b.system_identifier, b.timeline, b.end // SIZE * SIZE, b.end, b.stopped) for b in bases]
    system = bases[0].system_identifier
    names = {segment_name(1, number, SIZE): at(40 - number) for number in range(10, until + 1)}
    names.update({segment_name(2, number, SIZE): at(26 - number) for number in range(left, 24)})
    return windows(system, known, names, {2: [(1, left * SIZE + 0x500, "")]}, SIZE, each=True)


@pytest.mark.parametrize("target", [Target("time", at(22)), Target("lsn", position=17 * SIZE), Target("xid", xid=2200)])
def test_what_may_lie_on_two_branches_is_refused_until_one_is_named(target: Target) -> None:
    """Somebody recovered to a moment in segment 15, and now wants what came after that in the first history."""
    bases = [base(10, 30)]
    held = branched(bases)
    with pytest.raises(
        RefusedError, match="may lie on timeline 1 and on timeline 2: they parted at the LSN 0/F000500"
    ) as caught:
        choose_base(target, bases, held, NOW)
    assert "timeline 1 or 2" in caught.value.hint
    for name, number in (("1", 1), ("2", 2), ("current", 1)):
        chosen = choose_base(dataclasses.replace(target, timeline=name), bases, held, NOW)
        assert (chosen.base, chosen.timeline) == (bases[0], number)


@pytest.mark.parametrize(
    ("target", "until"),
    [
        (Target("time", at(5)), 20),  # the first history was over by then
        (Target("lsn", position=14 * SIZE), 20),  # before they part
        (Target("lsn", position=22 * SIZE), 20),  # where only the second is
        (Target("end"), 20),
        (Target("time", at(22)), 14),  # a failover: the first history ends where the second begins
        (Target("xid", xid=2200), 14),
    ],
)
def test_what_can_only_be_meant_on_the_latest_timeline_is_recovered(target: Target, until: int) -> None:
    bases = [base(10, 30)]
    chosen = choose_base(target, bases, branched(bases, until=until), NOW)
    assert (chosen.base, chosen.timeline) == (bases[0], 2)
    # PostgreSQL is told the number: its latest may be one of which there is a history file alone.
    assert chosen.followed(target).settings()["recovery_target_timeline"] == "2"


def test_a_timeline_whose_history_is_missing_hides_no_earlier_moment() -> None:
    only = base(2, 10)
    known = [Base(only.id, SYSTEM, 1, 2 * SIZE, only.end, only.stopped)]
    names = {segment_name(1, number, SIZE): at(10 - number) for number in range(2, 6)}
    names[segment_name(2, 6, SIZE)] = at(1)
    found = windows(SYSTEM, known, names, {}, SIZE, each=True)
    chosen = choose_base(Target("time", moment=at(6)), [only], found, NOW)
    assert chosen.followed(Target("time", moment=at(6))).timeline == "current"
    with pytest.raises(RefusedError, match=r"WAL of timeline 2, but not its history \(00000002\.history\)"):
        choose_base(Target("end"), [only], found, NOW)
    assert choose_base(Target("end", timeline="1"), [only], found, NOW).base == only
    with pytest.raises(RefusedError, match="the archive holds WAL for it up to"):
        choose_base(Target("time", moment=at(0.5)), [only], found, NOW)


def test_behind_a_base_backup_of_a_timeline_without_history_the_timeline_before_is_named() -> None:
    """As after a recovery in place, when nobody handed over the history: the latest timeline does not lead there."""
    bases = [base(2, 10), base(7, 1, timeline=2)]
    known = [Base(b.id, SYSTEM, b.timeline, b.end // SIZE * SIZE, b.end, b.stopped) for b in bases]
    names = {segment_name(1, number, SIZE): at(10 - number) for number in range(2, 6)}
    names.update({segment_name(2, number, SIZE): at(8 - number) for number in (7, 8)})
    found = windows(SYSTEM, known, names, {}, SIZE, each=True)
    for target in (Target("time", moment=at(6)), Target("lsn", position=4 * SIZE), Target("xid", xid=1250)):
        with pytest.raises(RefusedError, match="another timeline than 2") as caught:
            choose_base(target, bases, found, NOW)
        assert "Timeline 1 leads to where it may lie" in caught.value.hint
        assert choose_base(dataclasses.replace(target, timeline="1"), bases, found, NOW).base == bases[0]
    for target in (Target("time", moment=at(2)), Target("lsn", position=2 * SIZE), Target("end", timeline="3")):
        with pytest.raises(RefusedError) as caught:
            choose_base(target, bases, found, NOW)
        assert "may lie" not in caught.value.hint


def test_no_timeline_is_named_that_leads_there_from_another_base_backup_than_the_wanted_one() -> None:
    bases = [base(10, 30), base(20, 20)]
    held = archive(bases, {n: 40 - n for n in range(10, 30)})
    assert choose_base(Target("time", moment=at(25)), bases, held, NOW).base == bases[0]
    with pytest.raises(RefusedError, match="it was whole at") as caught:
        choose_base(Target("time", moment=at(25)), bases, held, NOW, wanted=bases[1].id)
    assert "leads to" not in caught.value.hint


def test_postgresql_is_told_the_timeline_that_was_looked_at() -> None:
    bases = [base(10, 30)]
    target = Target("time", at(22))
    chosen = choose_base(target, bases, archive(bases, {n: 40 - n for n in range(10, 30)}), NOW)
    assert chosen.followed(target).settings()["recovery_target_timeline"] == "current"
    named = dataclasses.replace(target, timeline="7")
    assert chosen.followed(named) == named
    assert choose_base(target, bases, None, NOW).followed(target) == target
    immediate = choose_base(Target("immediate"), bases, branched(bases), NOW)
    assert immediate.timeline == 0


numbers = st.integers(min_value=1, max_value=40)


@given(st.sets(numbers, min_size=1, max_size=6), st.sets(numbers, max_size=40), numbers)
def test_what_is_chosen_reaches_the_target_and_what_is_refused_cannot(
    begun: set[int], held: set[int], wanted: int
) -> None:
    """Against a plain walk: from the base backup's segment to the target's, every one is there."""
    bases = [base(number, 100 - number) for number in sorted(begun)]
    target = Target("lsn", position=wanted * SIZE + 0x200)
    found = archive(bases, {number: 100.0 - number for number in held})
    reaching = [
        b for b in bases if b.end <= target.position and all(n in held for n in range(b.end // SIZE, wanted + 1))
    ]
    try:
        chosen = choose_base(target, bases, found, NOW).base
    except RefusedError as error:
        assert not reaching
        assert all(b.id in error.message for b in bases)
    else:
        assert chosen == reaching[-1]


@given(
    st.lists(st.floats(min_value=0.1, max_value=99), min_size=1, max_size=8, unique=True),
    st.floats(min_value=0, max_value=99),
)
def test_no_base_backup_that_ended_later_is_ever_taken(ended: list[float], wanted: float) -> None:
    bases = [base(n, hours) for n, hours in enumerate(sorted(ended, reverse=True), start=1)]
    earlier = [b for b in bases if b.stopped <= at(wanted)]
    try:
        assert choose_base(Target("time", at(wanted)), bases, None, NOW).base.stopped == max(b.stopped for b in earlier)
    except RefusedError:
        assert not earlier


# --- did it stop there ------------------------------------------------------------------------------------------------

LOG = """\
LOG:  starting point-in-time recovery
LOG:  %s
LOG:  pausing at the end of recovery
"""
BEFORE = "recovery stopping before commit of transaction 759, time 2026-11-22 05:00:00.5+00"
AT_LSN = 'recovery stopping %s WAL location (LSN) "%X/%08X"'


def stopped(log: str = BEFORE, **others: Any) -> Stopped:
    return Stopped(
        **{
            "position": 25 * SIZE,
            "moment": at(3.5),
            "timeline": 2,
            "log": said_at_the_end((LOG % log).split("\n")),
            **others,
        }
    )


@pytest.mark.parametrize(
    "lie",
    [
        "LOG:  %s" % BEFORE,
        "2026-11-22 07:00:01 UTC [1] other startup: LOG:  %s" % BEFORE,
        "2026-11-22 07:00:01 UTC [1] t0ken client backend: LOG:  %s" % BEFORE,
        "2026-11-22 07:00:01 UTC [1] t0ken startup: \tLOG:  %s" % BEFORE,
        "2026-11-22 07:00:01 UTC [1] t0ken startup: LOG:  restored log file LOG:  %s" % BEFORE,
        "2026-11-22 07:00:01 UTC [1] t0ken startup: DETAIL:  LOG:  pausing at the end of recovery",
        # The name of a restore point that is passed; no newline of it comes without a tab.
        *("2026 [1] t0ken startup: LOG:  x%sLOG:  %s" % (end, BEFORE) for end in "\r\v\f\x1c\x85\u2028"),
    ],
)
def test_only_the_process_that_replays_tells_where_it_stopped(lie: str) -> None:
    """And only in lines of its own: a prefix, a restore point or a restore_command may say the same words."""
    words = spoken(lie + "\n", "t0ken")
    assert said_at_the_end(words) == ""
    assert not paused_at_the_end(words)
    mark = prefix_of("t0ken").replace("%b", "startup")
    words = spoken("%s\n%sLOG:  %s\n%s\n" % (lie, mark, BEFORE.replace("759", "7"), lie), "t0ken")
    assert said_at_the_end(words) == BEFORE.replace("759", "7")
    assert paused_at_the_end(words)


def test_a_restore_point_may_have_any_name() -> None:
    name = 'x", time 1\rLOG:  %s' % BEFORE
    assert said_at_the_end(
        spoken('p t0ken startup: LOG:  recovery stopping at restore point "%s", time 2\n' % name, "t0ken")
    )
    end = Stopped(25 * SIZE, at(3.5), 2, 'recovery stopping at restore point "%s", time 2' % name.partition("\r")[0])
    assert doubts(Target("name", name='x", time 1'), base(10, 30), end) == []


def test_the_last_words_are_found() -> None:
    assert said_at_the_end((LOG % BEFORE).split("\n")) == BEFORE
    assert said_at_the_end(["nothing"]) == ""
    assert stopped().as_data()["lsn"] == show_lsn(25 * SIZE)
    assert Stopped(None, None, None).as_data() == {"lsn": None, "time": None, "timeline": None, "log": ""}


@pytest.mark.parametrize(
    ("target", "end"),
    [
        (Target("time", at(3)), stopped()),
        (Target("time", at(3.5)), stopped()),
        (Target("time", at(3)), stopped(moment=None)),
        (Target("time", at(3) + timedelta(seconds=0.5), inclusive=False), stopped()),
        (Target("time", at(3), inclusive=False), stopped(BEFORE.replace("05:00:00.5+00", "10:45:00+05:45"))),
        # The first record at the target or behind it: here behind the header of a page.
        (Target("lsn", position=25 * SIZE), stopped(AT_LSN % ("after", 0, 25 * SIZE))),
        (Target("lsn", position=25 * SIZE), stopped(AT_LSN % ("after", 0, 25 * SIZE + 0x28), position=26 * SIZE)),
        (
            Target("lsn", position=25 * SIZE + 0x28, inclusive=False),
            stopped(AT_LSN % ("before", 0, 25 * SIZE + 0x28)),
        ),
        (Target("xid", xid=759), stopped("recovery stopping after commit of transaction 759, time x")),
        (Target("xid", xid=759, inclusive=False), stopped()),
        (
            Target("xid", xid=(1 << 32) + 759),
            stopped("recovery stopping after abort of prepared transaction 759, time x"),
        ),
        (Target("name", name='a "b"'), stopped('recovery stopping at restore point "a "b"", time x')),
        (Target("immediate"), stopped("recovery stopping after reaching consistency", moment=None)),
        (Target("end"), stopped("archive recovery complete")),
    ],
)
def test_a_right_end_leaves_no_doubt(target: Target, end: Stopped) -> None:
    assert doubts(target, base(10, 30), end) == []


@pytest.mark.parametrize(
    ("target", "end", "said"),
    [
        (Target("time", at(4)), stopped(), "is after the target"),
        (Target("time", at(3.5), inclusive=False), stopped(), "is after the target"),
        (Target("time", at(3)), stopped("redo done"), "does not say that it stopped"),
        # It stopped too early: the next transaction is none that came after the target.
        (
            Target("time", at(3) + timedelta(days=1)),
            stopped(),
            "a transaction that ended at 2026-11-22T05:00:00.500000+00:00",
        ),
        (Target("time", at(3) + timedelta(seconds=0.5)), stopped(), "belongs to the target"),
        (Target("time", at(3) + timedelta(seconds=1), inclusive=False), stopped(), "belongs to the target"),
        (Target("time", at(3)), stopped(BEFORE.replace("05:00", "25:00")), "something else than a moment"),
        (Target("time", at(3)), stopped(BEFORE.replace("before", "after")), "something else than a moment"),
        (Target("time", at(3)), stopped(AT_LSN % ("after", 0, 25 * SIZE)), "something else than a moment"),
        (Target("lsn", position=26 * SIZE), stopped(), "before the target"),
        (Target("lsn", position=24 * SIZE), stopped(), "something else than an LSN"),
        (Target("lsn", position=25 * SIZE), stopped(AT_LSN % ("after", 0, 41 * SIZE)), "at another LSN"),
        (Target("lsn", position=25 * SIZE), stopped(AT_LSN % ("after", 0, 25 * SIZE - 8)), "at another LSN"),
        (
            Target("lsn", position=25 * SIZE, inclusive=False),
            stopped(AT_LSN % ("after", 0, 25 * SIZE)),
            "was to stop before the LSN",
        ),
        (Target("xid", xid=759), stopped(), "was to stop after the transaction"),
        (
            Target("xid", xid=759, inclusive=False),
            stopped("recovery stopping after abort of transaction 759, time x"),
            "was to stop before the transaction",
        ),
        (Target("immediate"), stopped(), "something else than the end of the base backup"),
        (Target("end"), stopped(position=None), "does not tell which LSN"),
        (Target("end"), stopped(position=9 * SIZE), "before the base backup is whole"),
        (Target("end"), stopped(promoted=False), "did not come to the end"),
        (Target("xid", xid=760), stopped(), "at another transaction"),
        (
            Target("name", name="a"),
            stopped('recovery stopping at restore point "b", time x'),
            "at another restore point",
        ),
    ],
)
def test_a_wrong_end_is_told(target: Target, end: Stopped, said: str) -> None:
    assert said in "\n".join(doubts(target, base(10, 30), end))


def test_the_end_of_a_quiet_archive_is_an_end_for_a_moment() -> None:
    """Nothing was committed between the last transaction and the target: all that the archive had is replayed."""
    target, first = Target("time", at(3)), base(10, 30)
    end = stopped(AT_LSN % ("after", 0, 25 * SIZE - 0x38), quiet=True)
    assert doubts(target, first, end, 25 * SIZE) == []
    assert "the archive holds WAL up to" in "\n".join(doubts(target, first, end, 27 * SIZE))
    late = dataclasses.replace(end, moment=at(2))
    assert "is after the target" in "\n".join(doubts(target, first, late, 25 * SIZE))
    assert "does not say" in "\n".join(doubts(target, first, dataclasses.replace(end, log=""), 25 * SIZE))


def test_a_pause_is_an_end_only_when_the_server_says_so() -> None:
    midway = [
        "WARNING:  hot standby is not possible because of insufficient parameter settings",
        "LOG:  recovery has paused",
    ]
    assert not paused_at_the_end(midway)
    assert paused_at_the_end(["LOG:  %s" % BEFORE, "LOG:  recovery has paused"])
    assert paused_at_the_end(["LOG:  pausing at the end of recovery"])


def test_the_end_lies_in_the_last_segment_that_the_archive_has() -> None:
    """What ended in an earlier one took a trouble for the end of the WAL."""
    first = base(10, 30)
    target = Target("end")
    windows_ = archive([first], {number: 30 - number for number in range(10, 26)})
    reach = choose_base(target, [first], windows_, NOW).reach
    assert reach == 26 * SIZE
    assert choose_base(target, [first], None, NOW).reach == 0
    for position in (25 * SIZE, 25 * SIZE + 77, 26 * SIZE, 27 * SIZE):
        assert doubts(target, first, stopped("", position=position), reach) == []
    (said,) = doubts(target, first, stopped("", position=25 * SIZE - 8), reach)
    assert "the archive holds WAL up to 0/1A000000" in said
