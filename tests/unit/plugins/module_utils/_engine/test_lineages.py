# SPDX-License-Identifier: GPL-3.0-or-later
"""Two hosts with one name: whose set is whose, what is told, what stays, and what nobody chooses by itself."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import RefusedError, UnreachableError
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.lineages import (
    Taken,
    entwined,
    growing,
    newest_of_each,
    over,
)
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.recovery_target import Target
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.retention import SetFacts, plan
from ansible_collections.pgops.backup.plugins.module_utils._engine.places.catalog import Catalog
from ansible_collections.pgops.backup.plugins.module_utils._engine.places.chains import entwined_sets, refuse_entwined
from ansible_collections.pgops.backup.plugins.module_utils._engine.settings import Retention
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.info import Request, info
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.prune import Request as PruneRequest
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.prune import prune
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.recover import Request as RecoverRequest
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.recover import recover
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.restore import Request as RestoreRequest
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.restore import restore
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.sync import Request as SyncRequest
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.sync import sync

NOW = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)


def nights(order: str, first: datetime = NOW - 30 * DAY, step: timedelta = DAY) -> list[Taken]:
    """A set for each letter, of the cluster of that name; a dot is of none that is known, a blank a night without."""
    found = [Taken("%03d" % n, first + n * step, letter.strip(".")) for n, letter in enumerate(order)]
    return [one for one in found if one.system != " "]


@pytest.mark.parametrize(
    ("order", "found"),
    [
        ("", ""),
        ("aaaa", ""),
        ("aaabbb", ""),  # an upgrade, or a recovery into a new cluster
        ("aabaa", ""),  # an upgrade that was given up
        ("aabaacaa", ""),
        ("aba.cdc", ""),
        ("abab", "ab"),
        ("aabbaabb", "ab"),
        ("xxabab", "ab"),
        ("acbcacbc", "abc"),
        ("a.a.a", ""),
    ],
)
def test_clusters_that_take_turns_are_told_from_one_that_follows_another(order: str, found: str) -> None:
    assert entwined(nights(order)) == tuple(found)
    assert entwined(reversed(nights(order))) == tuple(found), "whatever their order"


@given(st.text("ab.", max_size=12))
def test_turns_are_taken_where_both_come_back(order: str) -> None:
    turns = [letter for letter, _unused in itertools.groupby(order.replace(".", ""))]
    assert entwined(nights(order)) == (("a", "b") if min(turns.count("a"), turns.count("b")) > 1 else ())


def test_what_has_stopped_is_not_told_of_for_ever() -> None:
    sets = nights("abab")
    last = sets[-1].begun
    assert growing(sets, last + 3 * DAY) == ("a", "b") == growing(sets, last)
    assert growing(sets, last + 4 * DAY) == (), "twice the longest pause of a"
    # One goes on, the other has its own name now.
    assert growing([*sets, *(Taken("9%d" % n, last + n * DAY, "a") for n in range(1, 9))], last + 8 * DAY) == ()
    weekly = nights("abab", step=timedelta(days=7))
    assert growing(weekly, weekly[-1].begun + 20 * DAY) == ("a", "b")
    assert growing(nights("aabb"), NOW) == ()


def test_the_newest_of_each_the_newest_first() -> None:
    assert [one.id for one in newest_of_each(nights("abac"), ("a", "b", "z"))] == ["002", "001"]


# --- retention --------------------------------------------------------------------------------------------------------


def facts(order: str, **values: Any) -> list[SetFacts]:
    return [SetFacts(one.id, one.begun, system=one.system, **values) for one in nights(order, NOW - len(order) * DAY)]


def test_the_only_set_of_a_cluster_stays_though_those_of_another_are_younger() -> None:
    decided = plan(facts("abbbbbbbb"), Retention(keep_last=2, keep_daily=14), NOW)
    assert "000" in decided.keep
    anew = plan(facts("abcdefgh"), Retention(keep_last=1, keep_daily=1, keep_monthly=6), NOW)
    assert len(anew.keep) == 4, "of a cluster that is made anew each night not one of each is kept"
    few = plan(facts("abbb"), Retention(keep_last=1, keep_weekly=1), NOW)
    assert {d.id: d.reasons for d in few.decisions}["000"] == ("newest of the cluster a",)


def test_the_last_set_before_an_upgrade_goes_when_the_rules_no_longer_reach_it() -> None:
    assert plan(facts("a" + 7 * "b"), Retention(keep_last=1, keep_daily=8), NOW).remove == ()
    assert "000" in plan(facts("a" + 8 * "b"), Retention(keep_last=1, keep_daily=8), NOW).remove
    assert "000" in plan(facts("a" + 3 * "b"), Retention(keep_within="3d"), NOW).remove
    assert "000" not in plan(facts("a" + 3 * "b"), Retention(keep_within="5d"), NOW).remove


RULES = st.builds(
    Retention,
    keep_within=st.sampled_from(["", "2d", "9d"]),
    keep_last=st.integers(0, 4),
    keep_daily=st.integers(0, 5),
    keep_weekly=st.integers(0, 2),
)


@given(st.text("ab", min_size=1, max_size=20), RULES)
def test_clusters_that_take_turns_lose_nothing_to_each_other(order: str, rules: Retention) -> None:
    every = facts(order, verified=True)
    kept = set(plan(every, rules, NOW).keep)
    if entwined(nights(order)):
        for system in "ab":
            alone = plan([f for f in every if f.system == system], rules, NOW)
            assert set(alone.keep) == {name for name in kept if name in {f.id for f in every if f.system == system}}
    else:
        # What is kept of one cluster's sets is not less than before anybody looked at clusters.
        blind = plan([SetFacts(f.id, f.begun, verified=True) for f in every], rules, NOW)
        assert kept >= set(blind.keep)


@given(st.text("a.", max_size=20), RULES)
def test_where_there_is_one_cluster_nothing_is_counted_otherwise(order: str, rules: Retention) -> None:
    every = facts(order)
    assert plan(every, rules, NOW) == plan([SetFacts(f.id, f.begun) for f in every], rules, NOW)


# --- the verbs --------------------------------------------------------------------------------------------------------


def two_hosts(world: Any, nights_ago: int = 4, *, own_copies: bool = True) -> dict[str, list[str]]:
    """Fill S3 as db1, which is this host, and db2 do, night after night, five minutes apart. Return the ids, the oldest first."""
    made: dict[str, list[str]] = {"111": [], "222": []}
    for ago in range(nights_ago, 0, -1):
        begun = world.NOW - ago * DAY + 12 * HOUR
        made["111"].append(world.add("local", begun, system_identifier="111", host="db1"))
        if own_copies:
            world.add("s3", begun, system_identifier="111", host="db1")
        made["222"].append(world.add("s3", begun + HOUR / 12, system_identifier="222", host="db2"))
    return made


def finding(world: Any, check: str, **request: Any) -> dict[str, Any]:
    found = info(world.context(), Request(**request))["freshness"]
    return next((f for f in found if f["check"] == check), {"severity": "none"})


def test_two_hosts_with_one_name_are_told_of(world: Any) -> None:
    made = two_hosts(world)
    found = finding(world, "clusters")
    assert found["severity"] == "critical"
    assert (
        "%s is of the cluster 222, taken on db2; %s is of the cluster 111, taken on db1"
        % (
            made["222"][-1],
            made["111"][-1],
        )
        in found["text"]
    )
    assert finding(world, "off-site copy")["severity"] == "ok"
    world.now += 7 * DAY
    assert finding(world, "clusters")["severity"] == "none", "neither goes on"


def test_the_copies_of_another_host_answer_nothing_about_this_one(world: Any) -> None:
    two_hosts(world, own_copies=False)
    assert finding(world, "backup")["severity"] == "ok"
    assert finding(world, "off-site copy")["severity"] == "critical"
    assert finding(world, "off-site copy", places=("s3",))["severity"] == "ok", "who does not know its own takes all"


def test_two_sets_of_one_second_are_two(world: Any) -> None:
    for ago in (3, 2, 1):
        begun = world.NOW - ago * DAY + 12 * HOUR
        world.add("local", begun, system_identifier="222")
        world.add("s3", begun, system_identifier="111")
    assert finding(world, "clusters")["severity"] == "critical"
    assert finding(world, "off-site copy")["severity"] == "critical", "what has the name there is of another host"


def test_an_upgrade_is_no_second_host(world: Any) -> None:
    for ago, system in ((3, "111"), (2, "111"), (1, "222")):
        for place in ("local", "s3"):
            world.add(place, world.NOW - ago * DAY + 12 * HOUR, system_identifier=system)
    assert finding(world, "clusters")["severity"] == "none"
    assert entwined_sets(Catalog(world.context().s3()), physical=False) == []


def test_nobody_chooses_among_the_sets_of_two_hosts(world: Any) -> None:
    made = two_hosts(world)
    catalog = Catalog(world.context().s3())
    with pytest.raises(RefusedError) as refused:
        refuse_entwined(catalog, physical=False)
    assert made["222"][-1] in refused.value.message
    assert "taken on db1" in refused.value.message
    refuse_entwined(catalog, physical=True)
    refuse_entwined(Catalog(world.context().local), physical=False)
    world.prove("s3", made["111"][0])
    found = entwined_sets(Catalog(world.context().s3()), physical=False)
    assert [one.id for one in found] == [made["222"][-1], made["111"][0]], (
        "of each the newest that is proven, or the newest"
    )


def test_prune_leaves_each_host_what_its_own_nights_allow(world: Any) -> None:
    made = two_hosts(world)
    kept = {
        one["set"]
        for p in info(world.context(), Request())["places"]
        if p["place"] == "s3"
        for one in p["retention"]["keep"]
    }
    prune(world.context(), PruneRequest(places=("s3",)))
    assert set(Catalog(world.context().s3()).ids()) == kept
    assert {made["111"][-1], made["222"][-1]} <= kept


def test_no_restore_begins_with_a_set_that_may_be_of_another_host(world: Any) -> None:
    made = two_hosts(world)
    for wanted in ("latest", "latest_verified"):
        with pytest.raises(RefusedError, match="taken on db2"):
            restore(world.context(), RestoreRequest(set=wanted, dry_run=True))
    for ago in (4, 3, 2, 1):
        for system, later in (("111", 0), ("222", 1)):
            world.add("s3", world.NOW - ago * DAY + later * HOUR, kind="base", system_identifier=system)
    end = Target("end")
    with pytest.raises(RefusedError, match="of the cluster 222"):
        recover(world.context(), RecoverRequest(end, "/srv/copy", dry_run=True))
    # Who names one gets as far as the server, which is not there.
    with pytest.raises(UnreachableError):
        restore(world.context(), RestoreRequest(set=made["111"][-1], dry_run=True))


def test_a_sync_brings_what_the_sets_of_another_host_would_push_out(make_world: Any) -> None:
    world = make_world(s3={"bucket": "bucket", "retention": {"keep_within": "", "keep_last": 1}})
    made = two_hosts(world)
    lost = made["111"][-1], made["111"][0]
    for path in [path for path in world.memory.stored if path.split("/")[1] in lost]:
        del world.memory.stored[path]
    planned = sync(world.context(), SyncRequest(dry_run=True))["plan"]
    assert {step["set"]: step["action"] for step in planned if step["set"] in lost} == {
        lost[0]: "push",
        lost[1]: "skip",
    }


# --- the WAL of a cluster that is no more -----------------------------------------------------------------------------

REACH = 30 * DAY


def test_it_is_over_with_a_cluster_when_another_one_has_gone_on_for_as_long_as_the_rules_reach():
    gone, since = NOW - 31 * DAY, [Taken("b1", NOW - 20 * DAY, "b")]
    newest = {"a": gone, "b": NOW - HOUR}
    assert over(newest, since, {"b"}, NOW, REACH) == ("a",)
    assert over({**newest, "0": gone - DAY}, since, {"b"}, NOW, REACH) == ("0", "a")
    for changed in (
        {"based": {"a", "b"}},  # a place keeps a base backup of it
        {"based": set()},  # of no cluster anything can be recovered
        {"newest": {**newest, "a": NOW - 29 * DAY}},  # it came a while ago only
        {"newest": {"a": gone}},  # the other one archives nothing
        {"newest": {"a": gone, "b": gone - DAY}},
        {"sets": []},
        {"sets": [Taken("b1", gone - DAY, "b")]},  # nothing came since
        {"sets": [*since, Taken("a1", NOW - 29 * DAY, "a")]},  # dumps of it still come
        {"sets": [*since, Taken("a1", NOW - HOUR, "a")]},
        {"sets": [Taken("c1", NOW - 20 * DAY, "c")]},  # of which there is no base backup
        {"now": NOW - 2 * DAY},
        {"span": 40 * DAY},
    ):
        facts = {"newest": newest, "sets": since, "based": {"b"}, "now": NOW, "span": REACH, **changed}
        assert over(**facts) == (), changed


MOMENTS = st.integers(0, 60).map(lambda days: NOW - days * DAY)
SETS = st.lists(st.tuples(MOMENTS, st.sampled_from("abc."), st.booleans()), max_size=8)


@given(st.dictionaries(st.sampled_from("abcd"), MOMENTS), SETS, st.integers(0, 40).map(lambda days: days * DAY))
def test_no_wal_goes_that_a_set_or_the_cluster_that_goes_on_may_need(newest, sets, span):
    taken = [Taken(str(n), when, letter.strip(".")) for n, (when, letter, _base) in enumerate(sets)]
    based = {one.system for one, (_when, _letter, is_base) in zip(taken, sets, strict=True) if is_base and one.system}
    gone = over(newest, taken, based, NOW, span)
    assert set(gone) <= set(newest)
    assert not set(gone) & based
    known = [one for one in taken if one.system]
    for system in gone:
        assert NOW - newest[system] > span
        assert newest[system] < max(newest.values())
        assert all(NOW - one.begun > span for one in known if one.system == system)
        assert max(known, key=lambda one: (one.begun, one.id)).system != system
        assert based, "something can be recovered without it"
    # The order in which they are listed, and WAL of others that is older still, change nothing about one.
    assert over(dict(reversed(newest.items())), taken[::-1], based, NOW, span) == gone
