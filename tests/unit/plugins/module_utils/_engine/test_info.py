# SPDX-License-Identifier: GPL-3.0-or-later
"""Info: what the places hold, told without changing anything and without believing what is broken."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import UsageError
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.manifest import Database, Payload
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.info import Request, info
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.pins import pin
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.prune import Request as PruneRequest
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.prune import prune

DAY, HOUR = timedelta(days=1), timedelta(hours=1)


def look(world: Any, **request: Any) -> dict[str, Any]:
    return info(world.context(), Request(**request))


def place(result: dict[str, Any], name: str = "local") -> dict[str, Any]:
    return next(p for p in result["places"] if p["place"] == name)


def severity(result: dict[str, Any], check: str) -> str:
    return next(f["severity"] for f in result["freshness"] if f["check"] == check)


def safe_world(world: Any) -> str:
    """A set of this night in both places, proven in S3."""
    set_id = world.add("local", world.NOW - 6 * HOUR)
    world.add("s3", world.NOW - 6 * HOUR)
    world.prove("s3", set_id, when=world.NOW - HOUR)
    return str(set_id)


def test_a_good_night_is_ok_and_everything_about_the_set_is_told(world: Any) -> None:
    set_id = safe_world(world)
    result = look(world)
    assert result["state"] == "ok"
    assert result["changed"] is False
    (described,) = place(result)["sets"]
    assert described.pop("bytes") > 4
    assert described == {
        "id": set_id,
        "kind": "logical",
        "begun": "2026-11-22T02:00:00+00:00",
        "ended": "2026-11-22T02:05:00+00:00",
        "age_seconds": 21600.0,
        "files": 1,
        "databases": ["orders"],
        "verified": True,
        "proofs": {"restore": {"outcome": "passed", "when": "2026-11-22T07:00:00+00:00"}},
        "pinned": False,
        "encryption": "none",
        "server_version": "18.3",
        "system_identifier": "7300000000000000001",
        "host": "",
        "parent": None,
        "chain": [],
        "complete": True,
        "problem": None,
        "warnings": [],
    }
    assert (place(result)["newest"], place(result)["newest_verified"]) == (set_id, set_id)
    assert place(result)["total_bytes"] == place(result, "s3")["total_bytes"] > 0
    json.dumps(result)


def test_nothing_anywhere_is_critical_and_not_an_error(world: Any) -> None:
    result = look(world)
    assert result["state"] == "critical"
    assert [p["reachable"] for p in result["places"]] == [True, True]
    assert [(p["sets"], p["newest"], p["total_bytes"]) for p in result["places"]] == [([], None, 0)] * 2


def test_looking_touches_nothing(world: Any, tmp_path: Path) -> None:
    safe_world(world)
    before = sorted(str(p) for p in tmp_path.rglob("*"))
    objects = dict(world.memory.stored)
    look(world, details=True)
    assert sorted(str(p) for p in tmp_path.rglob("*")) == before
    assert world.memory.stored == objects


def test_a_place_out_of_reach_is_reported_beside_the_others(world: Any) -> None:
    safe_world(world)
    world.memory.down = True
    result = look(world)
    assert (place(result)["reachable"], place(result, "s3")["reachable"]) == (True, False)
    assert place(result, "s3")["error"] == "The store does not answer. Check the network."
    assert severity(result, "off-site place") == "critical"
    assert severity(result, "backup") == "ok"


def test_what_s3_proved_counts_here_also_while_it_is_out_of_reach(world: Any) -> None:
    set_id = safe_world(world)
    prune(world.context(), PruneRequest())
    world.memory.down = True
    assert place(look(world))["newest_verified"] == set_id


def test_without_an_s3_place_only_the_local_one_is_told(make_world: Any) -> None:
    world = make_world(s3=None)
    world.add("local", world.NOW - HOUR)
    result = look(world)
    assert [p["place"] for p in result["places"]] == ["local"]
    assert severity(result, "no off-site place") == "warning"


def test_asking_for_one_place_judges_no_other(world: Any) -> None:
    safe_world(world)
    result = look(world, places=("local",))
    assert [p["place"] for p in result["places"]] == ["local"]
    assert [f["check"] for f in result["freshness"]] == ["backup", "verification"]
    assert place(result)["newest_verified"]
    assert [f["check"] for f in look(world, places=("s3",))["freshness"]] == ["backup", "off-site copy", "verification"]


def test_a_place_that_does_not_exist_is_refused(world: Any) -> None:
    with pytest.raises(UsageError, match="no place 'tape'"):
        look(world, places=("tape",))


@pytest.mark.parametrize(
    ("harm", "problem"),
    [
        (lambda file: file.unlink(), "Files are missing: databases/orders.dump."),
        (lambda file: file.write_bytes(b"x"), "Files are of the wrong size: databases/orders.dump."),
    ],
)
def test_a_set_with_a_lost_or_cut_file_is_not_complete_and_not_counted(world: Any, harm: Any, problem: str) -> None:
    older = world.add("local", world.NOW - 3 * DAY)
    broken = world.add("local", world.NOW - HOUR)
    world.prove("local", broken, when=world.NOW)
    harm(world.context().local.home / "sets" / broken / "databases" / "orders.dump")
    result = look(world)
    described = place(result)["sets"][0]
    assert (described["complete"], described["problem"]) == (False, problem)
    assert (place(result)["newest"], place(result)["newest_verified"]) == (older, None)
    assert severity(result, "backup") == "critical"
    assert severity(result, "verification") != "ok"


def test_a_set_whose_manifest_cannot_be_read_has_all_keys_and_no_standing(world: Any) -> None:
    good = world.add("local", world.NOW - 2 * HOUR)
    broken = world.add("local", world.NOW - HOUR)
    (world.context().local.home / "sets" / broken / "manifest.json").write_bytes(b"{")
    result = look(world)
    first, second = place(result)["sets"]
    assert sorted(first) == sorted(second)
    assert (first["id"], first["complete"], first["verified"], first["begun"]) == (broken, False, False, None)
    assert first["problem"].startswith("Its manifest cannot be read: The manifest of %s is not JSON" % broken)
    assert place(result)["newest"] == good
    assert {"set": broken, "reasons": ["its manifest cannot be read"]} in place(result)["retention"]["keep"]


def test_a_set_from_the_future_does_not_hide_that_backups_have_stopped(world: Any) -> None:
    world.add("local", world.NOW - 3 * DAY)
    world.add("local", world.NOW + 30 * DAY)
    result = look(world)
    assert severity(result, "backup") == "critical"
    assert severity(result, "clock") == "warning"


def test_a_failed_verification_leaves_an_older_proof_to_be_judged(world: Any) -> None:
    old, new = world.add("local", world.NOW - 9 * DAY), world.add("local", world.NOW - HOUR)
    world.prove("local", old, when=world.NOW - 8 * DAY)
    world.prove("local", new, outcome="failed", when=world.NOW)
    result = look(world)
    assert place(result)["sets"][0]["proofs"]["restore"]["outcome"] == "failed"
    assert severity(result, "verification") == "warning"


def test_retention_is_shown_as_prune_will_do_it(world: Any) -> None:
    for age in (1, 5, 8, 40):
        world.add("local", world.NOW - age * DAY)
        world.add("s3", world.NOW - age * DAY)
    pin(world.context(), "local", world.add("local", world.NOW - 50 * DAY), "audit")
    shown = look(world)
    done = prune(world.context(), PruneRequest())
    for name in ("local", "s3"):
        removed = [r["set"] for r in place(done, name)["removed"]]
        assert [r["set"] for r in place(shown, name)["retention"]["remove"]] == removed
        assert place(shown, name)["retention"]["keep"] == place(done, name)["kept"]


def test_details_add_sizes_and_what_the_fingerprint_counted(world: Any) -> None:
    fingerprint = {"relations": {"a": {"kind": "r"}, "b": {"kind": "p"}, "s": {"kind": "S"}}, "rows": {"a": 40, "b": 2}}
    dump = Payload("databases/orders.dump", "custom")
    databases = (
        Database("orders", dump, {}, fingerprint, bytes=1000, seconds=1.5),
        Database("odd", dump, {}, {"x": 1}),
        Database("none", dump, {}),
    )
    set_id = world.add("local", world.NOW - HOUR, databases=databases)
    pin(world.context(), "local", set_id, "audit")
    assert "contents" not in place(look(world))["sets"][0]
    described = place(look(world, details=True))["sets"][0]
    assert described["pin"]["reason"] == "audit"
    orders, odd, none = described["contents"]
    assert (orders["fingerprint"]["tables"], orders["fingerprint"]["rows"]) == (2, 42)
    assert (orders["bytes"], orders["dump_bytes"], orders["format"]) == (1000, 4, "custom")
    assert (odd["fingerprint"], none["fingerprint"]) == (None, None)


def test_unfinished_sets_and_strays_are_shown(world: Any) -> None:
    world.memory.write("sets/20261122T020000Z-logical/part", b"x")
    world.memory.write("sets/readme.txt", b"x")
    shown = place(look(world), "s3")
    assert (shown["unfinished"], shown["strays"]) == (["20261122T020000Z-logical"], ["sets/readme.txt"])
    assert shown["total_bytes"] == 1


def test_the_local_directory_that_cannot_be_read_is_critical(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    safe_world(world)
    local = type(world.context().local)

    def refuse(self: Any, prefix: str) -> Any:
        raise PermissionError(13, "Permission denied", "/backups")

    monkeypatch.setattr(local, "entries", refuse)
    result = look(world)
    assert place(result)["reachable"] is False
    assert "Permission denied" in place(result)["error"]
    assert severity(result, "local place") == "critical"
    assert place(result, "s3")["newest_verified"]
