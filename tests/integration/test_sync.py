# SPDX-License-Identifier: GPL-3.0-or-later
"""Sync both ways against real servers: what is sent, what is left alone, what is repaired, what is an alarm."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine.context import Context
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import (
    BusyError,
    DamagedError,
    MissingError,
    PgopsError,
    RefusedError,
    UnreachableError,
    UsageError,
)
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.manifest import content_hash
from ansible_collections.pgops.backup.plugins.module_utils._engine.places import evidence
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs import sync as sync_module
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs import sync_pull
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.sync import Request, sync
from tests.integration.s3_fixtures import (  # noqa: F401  # pylint: disable=unused-import  # fixtures
    MIB,
    CutAnswer,
    Kit,
    Proxy,
    Refuse,
    kit_of_each,
    make_moto_kit,
    make_rclone_kit,
    make_set,
    make_strict_kit,
    moto_server,
    rclone_server,
)

SIZES = {"dumps/a.dump": 7 * MIB, "dumps/b.dump": 1000, "globals.sql": 0}


def set_id(days: int, kind: str = "logical") -> str:
    return "%s-%s" % ((datetime.now(UTC) - timedelta(days=days)).strftime("%Y%m%dT%H%M%SZ"), kind)


def prove(context: Context, name: str, *, outcome: str = "passed", level: str = "restore") -> str:
    encoded = context.local.read("sets/%s/manifest.json" % name)
    report = {
        "set": name,
        "content": content_hash(encoded),
        "place": "local",
        "level": level,
        "outcome": outcome,
        "finished": context.clock().isoformat(),
    }
    return evidence.store(context.local, report)


def tree(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_sets_and_evidence_go_there_and_come_back_the_same(kit: Kit) -> None:
    here = kit.context()
    new, old = set_id(0), set_id(2)
    for name in (old, new):
        make_set(here, name, SIZES)
    prove(here, old)
    pushed = sync(here, Request())
    assert pushed["changed"]
    assert pushed["sets"] == [new, old], "the newest first"
    assert pushed["files_sent"] == 8
    assert pushed["evidence_sent"] == 1
    assert pushed["bytes_sent"] > 14 * MIB
    for name in (old, new):
        for file in (*SIZES, "manifest.json"):
            path = "sets/%s/%s" % (name, file)
            assert kit.raw_read(path) == here.local.read(path)
    there = kit.context(home="there")
    pulled = sync(there, Request("pull", ("all",)))
    assert pulled["sets"] == [new, old]
    assert pulled["evidence_sent"] == 1
    assert tree(there.local.home) == tree(here.local.home)
    again = sync(there, Request("pull", ("latest", "latest_verified")))
    assert (again["changed"], again["already"]) == (False, 2)


def test_nothing_to_do_costs_one_listing(kit: Kit) -> None:
    here = kit.context()
    for days in range(30):
        make_set(here, set_id(days), {"a": 10, "b/c": 20})
    proven = here.local.entries("sets").popitem()[0].split("/")[1]
    lost = prove(here, proven)
    with Proxy(kit.server.endpoint_url) as proxy:
        context = kit.context(proxy.url)
        assert len(sync(context, Request())["sets"]) == 30
        proxy.asked.clear()
        result = sync(context, Request())
        assert proxy.kinds() == ["list"]
        assert (result["changed"], result["already"], result["plan"]) == (False, 30, [])
        # Evidence that is new costs one more, and finds what has been lost there.
        kit.raw().delete_object(Bucket="backups", Key=kit.raw_key(lost))
        prove(here, proven, level="checksum")
        assert sync(context, Request(dry_run=True))["evidence_sent"] == 2
        proxy.asked.clear()
        assert sync(context, Request())["evidence_sent"] == 2
        assert proxy.kinds().count("list") == 2
        proxy.asked.clear()
        assert sync(context, Request())["evidence_sent"] == 0
        assert proxy.kinds() == ["list"]


def test_the_manifest_is_written_last_and_an_interrupted_push_goes_on(kit: Kit) -> None:
    here = kit.context()
    name = set_id(0)
    make_set(here, name, {"a": 1000, "b": 12 * MIB, "c": 2000})
    with Proxy(kit.server.endpoint_url) as proxy:
        context = kit.context(proxy.url, concurrency=1)
        proxy.fault = lambda asked: Refuse(403, "AccessDenied") if asked.path.endswith("/c") else None
        with pytest.raises(PgopsError, match="access denied"):
            sync(context, Request())
        assert "sets/%s/manifest.json" % name not in kit.raw_paths()
        proxy.fault = lambda asked: None
        proxy.asked.clear()
        plan = sync(context, Request(dry_run=True))["plan"]
        assert plan[0]["reason"] == "an earlier run was interrupted"
        result = sync(context, Request())
        puts = [a.path.rsplit("/", 1)[1] for a in proxy.asked if a.kind in ("put", "part")]
    assert puts == ["c", "manifest.json"]
    assert result["files_skipped"] == 2
    assert result["sets"] == [name]


def test_a_dry_run_writes_nothing_anywhere(kit: Kit) -> None:
    here = kit.context()
    name = set_id(0)
    make_set(here, name, SIZES)
    before = tree(kit.tmp)
    with Proxy(kit.server.endpoint_url) as proxy:
        result = sync(kit.context(proxy.url), Request(dry_run=True))
        assert {a.method for a in proxy.asked} <= {"GET", "HEAD"}
    assert tree(kit.tmp) == before
    assert not (kit.tmp / "here/state").exists()
    assert kit.raw_paths() == []
    total = sum(SIZES.values())
    assert result["plan"] == [{"set": name, "action": "push", "files": 4, "bytes": total, "reason": "missing there"}]
    assert result["changed"], "check mode says that a run would change something"


def test_other_content_under_the_same_name_is_an_alarm_and_the_rest_goes_on(kit: Kit) -> None:
    here, there = kit.context(), kit.context(home="there")
    same, other = set_id(1), set_id(2)
    make_set(there, other, {"a": 10}, mark="theirs")
    sync(there, Request())
    theirs = kit.raw_read("sets/%s/manifest.json" % other)
    make_set(here, other, {"a": 10}, mark="ours")
    make_set(here, same, {"a": 10})
    with pytest.raises(DamagedError, match=r"1 of 2 sets could not be reconciled.*%s.*other content" % other):
        sync(here, Request())
    assert kit.raw_read("sets/%s/manifest.json" % other) == theirs
    assert kit.raw_read("sets/%s/a" % same) == here.local.read("sets/%s/a" % same)
    with pytest.raises(DamagedError, match="other content"):
        sync(here, Request("pull", (other,)))


def test_what_is_broken_there_is_repaired_from_the_good_side(kit: Kit) -> None:
    here = kit.context()
    gone, shorter, altered, manifest = (set_id(days) for days in (1, 2, 3, 4))
    for name in (gone, shorter, altered, manifest):
        make_set(here, name, {"a": 100, "b": 200, "large": 6 * MIB})
    sync(here, Request())
    intact = {path: kit.raw_read(path) for path in kit.raw_paths()}
    kit.raw().delete_object(Bucket="backups", Key=kit.raw_key("sets/%s/a" % gone))
    kit.raw_write("sets/%s/b" % shorter, b"short")
    kit.raw_write("sets/%s/large" % altered, b"x" * 6 * MIB)
    kit.raw_write("sets/%s/manifest.json" % manifest, b"{ torn")
    result = sync(here, Request())
    assert {r["set"]: r["files"] for r in result["repaired"]} == {
        gone: ["a"],
        shorter: ["b"],
        altered: ["large"],
        manifest: ["manifest.json"],
    }
    assert result["changed"]
    assert {path: kit.raw_read(path) for path in kit.raw_paths()} == intact
    assert len([w for w in here.warnings if "was repaired" in w]) == 4
    assert not sync(here, Request())["changed"]


def test_what_is_only_there_is_told_and_a_lost_newest_set_is_a_warning(moto_kit: Kit) -> None:
    here = moto_kit.context()
    old, middle, new = (set_id(days) for days in (3, 2, 1))
    for name in (old, middle, new):
        make_set(here, name, {"a": 10})
    first = sync(here, Request())
    assert (first["only_there"], first["only_there_count"]) == ([], 0)
    here.local.delete_set(old)
    context = moto_kit.context()
    result = sync(context, Request())
    assert (result["only_there"], result["only_there_count"]) == ([old], 1)
    assert context.warnings == [], "S3 keeps sets for longer"
    here.local.delete_set(new)
    for dry_run in (True, False):
        context = moto_kit.context()
        assert sync(context, Request(dry_run=dry_run))["only_there"] == [new, old]
        assert context.warnings == [
            "The newest set, %s, is only in %s; here is none that is newer than %s. If this host has lost it: pgops sync "
            "--pull %s" % (new, context.s3().root, middle, new)
        ]
    here.local.delete_set(middle)
    context = moto_kit.context()
    result = sync(context, Request())
    assert (result["changed"], result["only_there"]) == (False, [new, middle, old])
    assert "here is none. If this host has lost it: pgops sync --pull %s" % new in context.warnings[0]
    assert sync(context, Request("pull"))["only_there"] == [middle, old]
    assert sync(context, Request("pull", ("all",)))["only_there_count"] == 0


def test_base_backups_that_are_taken_straight_there_are_no_loss(moto_kit: Kit) -> None:
    here = moto_kit.context()
    dump, base = set_id(2), set_id(1, "base")
    for name in (dump, base):
        make_set(here, name, {"a": 10})
    sync(here, Request())
    here.local.delete_set(base)
    context = moto_kit.context()
    context.config = replace(context.config, base=replace(context.config.base, to="s3"))
    assert sync(context, Request())["only_there"] == [base]
    assert context.warnings == []
    context = moto_kit.context()
    sync(context, Request())
    assert "--pull %s" % base in context.warnings[0]


def test_a_damaged_copy_here_of_a_good_one_there_is_to_be_pulled(moto_kit: Kit) -> None:
    here = moto_kit.context()
    torn, other = set_id(1), set_id(2)
    for name in (torn, other):
        make_set(here, name, {"a": 100})
    sync(here, Request())
    intact = tree(here.local.home)
    here.local.path("sets/%s/manifest.json" % torn).write_text("{ torn")
    with pytest.raises(DamagedError) as caught:
        sync(moto_kit.context(), Request())
    assert caught.value.hint == "The copy here is damaged; bring the good one from there: pgops sync --pull %s." % torn
    assert sync(moto_kit.context(), Request("pull", (torn,)))["repaired"][0]["set"] == torn
    assert tree(here.local.home) == intact
    # One that cannot be mended so is not said to be.
    here.local.path("sets/%s/manifest.json" % torn).write_text("{ torn")
    moto_kit.raw_write("sets/%s/a" % torn, b"short")
    with pytest.raises(DamagedError) as caught:
        sync(moto_kit.context(), Request())
    assert caught.value.hint.startswith("Verify both copies")


def test_a_damaged_file_here_of_a_good_one_there_is_to_be_pulled(strict_kit: tuple[Kit, Proxy]) -> None:
    """The store's checksum is one of parts, so the comparison reads the file here."""
    kit, proxy = strict_kit
    here = kit.context(proxy.url)
    name, only_here = set_id(1), set_id(2)
    make_set(here, name, {"a": 100, "large": 11 * MIB})
    sync(here, Request())
    (here.state / "synced.json").unlink()
    large = here.local.path("sets/%s/large" % name)
    right = large.read_bytes()
    large.write_bytes(bytes(11 * MIB))
    make_set(here, only_here, {"a": 100})
    here.local.path("sets/%s/a" % only_here).write_bytes(b"x" * 100)
    with pytest.raises(DamagedError) as caught:
        sync(kit.context(proxy.url), Request())
    assert "pgops sync --pull %s. Of the others verify both copies" % name in caught.value.hint
    sync(kit.context(proxy.url), Request("pull", (name,)))
    assert large.read_bytes() == right


def test_without_memory_the_content_is_compared_even_where_sizes_are_equal(kit: Kit) -> None:
    here = kit.context()
    name = set_id(1)
    make_set(here, name, {"a": 100, "b": 200})
    sync(here, Request())
    (here.state / "synced.json").unlink()
    assert sync(here, Request())["already"] == 1  # compared, found equal, nothing sent
    (here.state / "synced.json").unlink()
    kit.raw_write("sets/%s/b" % name, b"x" * 200)
    assert sync(here, Request())["repaired"][0]["files"] == ["b"]
    assert not sync(here, Request())["changed"]


def test_a_pull_repairs_a_local_file_of_the_right_size(kit: Kit) -> None:
    here = kit.context()
    name = set_id(1)
    make_set(here, name, {"a": 100, "b": 200})
    sync(here, Request())
    path = here.local.path("sets/%s/b" % name)
    right = path.read_bytes()
    path.write_bytes(b"x" * 200)
    sync(here, Request(direction="pull"))
    assert path.read_bytes() == right


def test_without_memory_a_file_of_another_size_is_sent_again(kit: Kit) -> None:
    here = kit.context()
    name = set_id(1)
    make_set(here, name, {"a": 100, "b": 200})
    sync(here, Request())
    (here.state / "synced.json").write_text("{ torn")
    kit.raw_write("sets/%s/b" % name, b"short")
    assert sync(here, Request())["repaired"][0]["files"] == ["b"]


def test_a_damaged_local_file_is_never_sent(kit: Kit) -> None:
    here = kit.context()
    bad, good = set_id(0), set_id(1)
    for name in (bad, good):
        make_set(here, name, {"a": 100, "b": 200})
    path = here.local.path("sets/%s/b" % bad)
    path.write_bytes(b"x" * 200)
    with pytest.raises(DamagedError, match="local copy is damaged"):
        sync(here, Request())
    assert "sets/%s/manifest.json" % bad not in kit.raw_paths()
    assert "sets/%s/manifest.json" % good in kit.raw_paths()


def test_what_retention_would_remove_at_once_is_not_sent(moto_kit: Kit) -> None:
    here = moto_kit.context()
    young, ancient, proven = set_id(1), set_id(100), set_id(50)
    for name in (young, ancient, proven):
        make_set(here, name, {"a": 10})
    prove(here, proven)
    result = sync(here, Request())
    assert result["sets"] == [young, proven], "the floor of verified sets counts"
    assert [s["set"] for s in result["left_out"]] == [ancient]
    assert "retention" in result["left_out"][0]["why"]


def test_evidence_of_a_set_that_was_sent_before_follows(moto_kit: Kit) -> None:
    here = moto_kit.context()
    name = set_id(1)
    make_set(here, name, {"a": 10})
    sync(here, Request())
    path = prove(here, name)
    result = sync(here, Request())
    assert (result["evidence_sent"], result["already"], result["sets"]) == (1, 1, [])
    assert moto_kit.raw_read(path) == here.local.read(path)
    assert not sync(here, Request())["changed"]


def test_what_a_set_builds_on_is_sent_and_fetched_with_it(moto_kit: Kit) -> None:
    here = moto_kit.context()
    base, child = set_id(2, "base"), set_id(1, "incremental")
    make_set(here, base, {"a": 10})
    make_set(here, child, {"a": 10}, parent=base)
    assert sync(here, Request())["sets"] == [base, child]
    there = moto_kit.context(home="there")
    assert sync(there, Request("pull"))["sets"] == [base, child]


def test_pull_repairs_what_is_missing_here(kit: Kit) -> None:
    here = kit.context()
    name = set_id(1)
    make_set(here, name, {"a": 100, "sub/b": 6 * MIB})
    sync(here, Request())
    intact = tree(here.local.home)
    here.local.path("sets/%s/sub/b" % name).unlink()
    here.local.path("sets/%s/a" % name).write_bytes(b"short")
    result = sync(here, Request("pull"))
    assert result["repaired"][0]["files"] == ["a", "sub/b"]
    assert tree(here.local.home) == intact


def test_pull_of_a_damaged_object_leaves_no_set(kit: Kit) -> None:
    here = kit.context()
    name = set_id(1)
    make_set(here, name, {"a": 100})
    sync(here, Request())
    kit.raw_write("sets/%s/a" % name, b"y" * 100)
    there = kit.context(home="there")
    with pytest.raises(DamagedError, match="SHA-256 differs"):
        sync(there, Request("pull"))
    assert tree(there.local.home) == {}


def test_a_cut_pull_goes_on_with_the_files_that_it_had(moto_kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    here = moto_kit.context()
    name = set_id(1)
    make_set(here, name, {"a": 7 * MIB, "b/c": 500_000, "z": 6 * MIB})
    sync(here, Request())
    there = moto_kit.context(home="there")
    with Proxy(moto_kit.server.endpoint_url) as proxy:
        monkeypatch.setattr(there, "s3", lambda: moto_kit.place(proxy.url, tries=2, concurrency=1))
        proxy.fault = lambda asked: CutAnswer(0) if asked.path.endswith("/z") and asked.kind == "get" else None
        with pytest.raises(UnreachableError):
            sync(there, Request("pull"))
        left = there.local.path("sets/.unfinished-pull-%s" % name)
        assert sorted(tree(left)) == [".z.fetched", "a", "b/c", "z"]
        assert there.warnings == [
            "What was fetched of %s stays in %s for 7 days: pgops sync --pull %s goes on with it." % (name, left, name)
        ]
        assert there.local.entries("sets") == {}
        # A killed run leaves more: files that are not whole, and what is not of the set.
        (left / "z").write_bytes(bytes(6 * MIB))
        (left / "b/c").write_bytes(b"half")
        (left / "manifest.json").write_bytes(b"{ torn")
        (left / "b/.c.fetched").write_bytes(b"{}")
        (left / ".q.fetched").write_bytes(b"{}")
        proxy.fault = lambda asked: None
        proxy.asked.clear()
        result = sync(there, Request("pull"))
        fetched = {a.path.rsplit(name, 1)[1] for a in proxy.asked if a.kind == "get" and name in a.path}
    assert fetched == {"/b/c", "/manifest.json", "/z"}
    assert (result["sets"], result["files_skipped"], result["files_sent"]) == ([name], 1, 3)
    assert result["bytes_sent"] == 6 * MIB + 500_000
    assert tree(there.local.home) == tree(here.local.home)


@pytest.mark.parametrize("what", ["the object is another", "what came was altered", "that and its hash were"])
def test_a_pull_trusts_what_came_of_a_file_as_far_as_it_is_right(
    moto_kit: Kit, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    here, name = moto_kit.context(), set_id(1)
    make_set(here, name, {"z": 11 * MIB})
    sync(here, Request())
    there = moto_kit.context(home="there")
    with Proxy(moto_kit.server.endpoint_url) as proxy, monkeypatch.context() as patch:
        patch.setattr(there, "s3", lambda: moto_kit.place(proxy.url, tries=2, concurrency=1))
        last = "bytes=%d-%d" % (10 * MIB, 11 * MIB - 1)
        proxy.fault = lambda asked: CutAnswer(0) if asked.headers.get("range") == last else None
        with pytest.raises(UnreachableError):
            sync(there, Request("pull"))
    left = there.local.path("sets/.unfinished-pull-%s" % name)
    content = bytearray((left / "z").read_bytes())
    assert content[: 10 * MIB] == here.local.path("sets/%s/z" % name).read_bytes()[: 10 * MIB]
    assert len((left / ".z.fetched").read_text().splitlines()) == 3
    content[0] ^= 1
    if what == "the object is another":
        moto_kit.raw_write("sets/%s/z" % name, here.local.path("sets/%s/z" % name).read_bytes())
    else:
        (left / "z").write_bytes(content)
    if what == "that and its hash were":
        with (left / ".z.fetched").open("a") as stream:
            stream.write("1 %s\n" % hashlib.sha256(content[: 5 * MIB]).hexdigest())
        with pytest.raises(DamagedError, match="SHA-256 differs"):
            sync(there, Request("pull"))
        assert tree(there.local.home) == {}
    came = {"the object is another": 11, "what came was altered": 6, "that and its hash were": 11}
    assert sync(there, Request("pull"))["bytes_sent"] == came[what] * MIB
    assert tree(there.local.home) == tree(here.local.home)


def test_a_pull_needs_room_for_what_has_not_come(moto_kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    here, name = moto_kit.context(), set_id(1)
    make_set(here, name, {"z": 6 * MIB})
    sync(here, Request())
    there = moto_kit.context(home="there")
    with Proxy(moto_kit.server.endpoint_url) as proxy:
        monkeypatch.setattr(there, "s3", lambda: moto_kit.place(proxy.url, tries=2, concurrency=1))
        last = "bytes=%d-%d" % (5 * MIB, 6 * MIB - 1)
        proxy.fault = lambda asked: CutAnswer(0) if asked.headers.get("range") == last else None
        with pytest.raises(UnreachableError):
            sync(there, Request("pull"))
        # What a file takes on the disk may be some blocks more.
        monkeypatch.setattr(sync_pull, "free_bytes", lambda path: 2 * MIB - 65536)
        with pytest.raises(RefusedError, match=r"needs 1\.0 MiB and 1\.0 MiB must stay free"):
            sync(there, Request("pull"))
        monkeypatch.setattr(sync_pull, "free_bytes", lambda path: 2 * MIB)
        proxy.fault = lambda asked: None
        assert sync(there, Request("pull"))["bytes_sent"] == MIB


def test_a_set_whose_files_are_named_like_our_lists_is_pulled_all_the_same(moto_kit: Kit) -> None:
    here = moto_kit.context()
    make_set(here, set_id(1), {"z": 6 * MIB, ".z.fetched": 6 * MIB})
    sync(here, Request())
    there = moto_kit.context(home="there")
    sync(there, Request("pull"))
    assert tree(there.local.home) == tree(here.local.home)


def test_pull_refuses_when_space_is_short(moto_kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    here = moto_kit.context()
    make_set(here, set_id(1), {"a": 100})
    sync(here, Request())
    there = moto_kit.context(home="there")
    monkeypatch.setattr(sync_pull, "free_bytes", lambda path: MIB + 99)
    with pytest.raises(RefusedError, match=r"needs 100 B and 1\.0 MiB must stay free"):
        sync(there, Request("pull"))
    monkeypatch.setattr(sync_pull, "free_bytes", lambda path: MIB + 100)
    assert sync(there, Request("pull"))["changed"]


def test_pull_names_what_is_not_there(moto_kit: Kit) -> None:
    context = moto_kit.context()
    for names, kind in (
        ((), MissingError),
        (("latest_verified",), MissingError),
        ((set_id(3),), MissingError),
        (("yesterday",), UsageError),
    ):
        with pytest.raises(kind):
            sync(context, Request("pull", names))
    with pytest.raises(UsageError, match="Say push or pull"):
        sync(context, Request("sideways"))


def test_a_push_waits_for_a_running_backup_and_not_for_ever(moto_kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    here = moto_kit.context()
    make_set(here, set_id(1), {"a": 100})
    monkeypatch.setattr(sync_module, "_BACKUP_WAIT", timedelta(seconds=0.5))
    with here.lock("backup"), pytest.raises(BusyError, match="backup of"):
        sync(moto_kit.context(), Request())
    monkeypatch.setattr(sync_module, "_BACKUP_WAIT", timedelta(seconds=30))
    begun, results = threading.Event(), []

    def push() -> None:
        begun.set()
        results.append(sync(moto_kit.context(), Request()))

    with here.lock("backup"):
        thread = threading.Thread(target=push)
        thread.start()
        begun.wait()
        thread.join(0.6)
        assert thread.is_alive()
        assert moto_kit.raw_paths() == []
    thread.join(30)
    assert results[0]["changed"]
    with here.lock("sync"), pytest.raises(BusyError, match="sync of"):
        sync(moto_kit.context(), Request())
