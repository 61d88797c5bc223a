# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading the WAL archive again: what is read next, what is found, and what follows from damage for the window and the run."""

from __future__ import annotations

import errno
import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine import runs
from ansible_collections.pgops.backup.plugins.module_utils._engine.cli import show
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import (
    CommandError,
    DamagedError,
    UnreachableError,
    UsageError,
)
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.segments import segment_name
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.wal_proof import (
    Read,
    choose,
    decode,
    encode,
    left,
)
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.window import made_up_for
from ansible_collections.pgops.backup.plugins.module_utils._engine.run_records import history
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs import verify as verify_verb
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs import verify_wal as reading
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.survey import survey
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.wal_status import holding
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.windows import windows_of
from ansible_collections.pgops.backup.plugins.module_utils._engine.wal import pack, proofs
from ansible_collections.pgops.backup.plugins.module_utils._engine.wal.holdings import Held
from ansible_collections.pgops.backup.plugins.module_utils._engine.wal.origin import check_segment

from .test_wal_verbs import HOUR, NOW, SIZE, SYSTEM, Archive


def path_of(number: int) -> str:
    return "wal/1/%s/%s-%s" % ("0" * 16, segment_name(1, number, SIZE), "a" * 64)


# --- which is next ----------------------------------------------------------------------------------------------------


def test_the_damaged_come_first_then_the_newest_unread_then_those_read_longest_ago():
    marks = {path_of(number): "m" for number in range(1, 8)}
    known = {
        path_of(1): Read("m", 30),
        path_of(2): Read("m", 10),
        path_of(3): Read("m", 20, "It is cut."),
        path_of(4): Read("another", 5, "It was cut, and written again since."),
    }
    order = [path_of(number) for number in (3, 7, 6, 5, 4, 2, 1)]
    assert choose(marks, known, 10) == order
    assert choose(marks, known, 3) == order[:3]
    assert left(marks, known) == 4


def test_many_damaged_ones_leave_room_for_the_others():
    marks = {path_of(number): "m" for number in range(1, 8)}
    known = {path_of(number): Read("m", 50 - number, "It is cut.") for number in range(1, 6)}
    assert choose(marks, known, 4) == [path_of(number) for number in (5, 4, 7, 6)]
    assert choose(marks, known, 10) == [path_of(number) for number in (5, 4, 3, 2, 1, 7, 6)]


def test_what_is_remembered_comes_back_and_nothing_else_does():
    known = {path_of(1): Read("m", 30), path_of(2): Read("n", 10, "It is cut.")}
    kept = json.loads(json.dumps(encode("s3://a/b", known)))
    assert decode(kept, "s3://a/b") == known
    assert decode(kept, "s3://another") == {}
    for damaged in (None, [], {**kept, "format": 2}, {**kept, "files": []}):
        assert decode(damaged, "s3://a/b") == {}
    assert decode({**kept, "files": {"a": ["m", "1", ""], "b": 1, "c": ["m", True, ""]}}, "s3://a/b") == {}


# --- what is found ----------------------------------------------------------------------------------------------------


@pytest.fixture
def archive(make_world):
    return Archive(make_world(wal={"enabled": True, "keep_local": "2h"}, verify={"level": "checksum"}))


def verify(archive: Archive, place: str, **request: Any) -> dict[str, Any]:
    request = {"sets": ("all",), **request}
    asked = verify_verb.Request(place=place, **request)
    context = archive.world.context()
    return runs.perform(context, "verify", lambda c: verify_verb.verify(c, asked), dry_run=asked.dry_run)


def alter(archive: Archive, place: str, path: str, how: str) -> None:
    full = archive.home / path
    blob = archive.world.memory.stored[path][0] if place == "s3" else full.read_bytes()
    # The last four bytes are zstd's own sum of the content; whatever is altered before them is found by it or by the hash.
    other = blob[:-1] if how == "truncated" else blob[:40] + bytes([blob[40] ^ 1]) + blob[41:]
    if place == "s3":
        archive.world.memory.write(path, other)
    else:
        full.write_bytes(other)


def whole(archive: Archive, place: str, numbers: range = range(1, 6)) -> list[str]:
    """A base backup that needs the first segment, and all of them in `place`."""
    paths = [archive.segment(number, age=(20 - number) * timedelta(minutes=1)) for number in numbers]
    archive.base(place, NOW - HOUR, numbers.start)
    if place == "s3":
        archive.ship()
    return paths


@pytest.mark.parametrize("how", ["flipped", "truncated"])
@pytest.mark.parametrize("place", ["local", "s3"])
def test_one_altered_byte_fails_the_verification_and_cuts_the_window(archive, place, how):
    paths = whole(archive, place)
    alter(archive, place, paths[2], how)
    with pytest.raises(DamagedError, match=r"WAL in .* failed the verification") as caught:
        verify(archive, place)
    wal = caught.value.details["wal"]
    assert (wal["read"], wal["passed"], wal["found"], wal["left"]) == (5, 4, 1, 0)
    assert [one["file"] for one in wal["damaged"]] == [paths[2]]
    assert "%s is damaged" % paths[2] in wal["damaged"][0]["problem"]
    assert "take a new base backup" in caught.value.hint
    assert [report["outcome"] for report in caught.value.details["sets"]] == ["passed"]

    held = holding(place, survey(archive.world.context(), (place,))[0].held(pytest.fail))
    assert held.damaged == [segment_name(1, 3, SIZE)]
    assert held.gaps == [], "what is damaged is not told as missing, too"
    (window,) = survey(archive.world.context(), (place,))[0].held(pytest.fail).windows
    assert window.stretches[0].end == 3 * SIZE
    (record,) = history(archive.world.context().state, "verify")
    assert (record["outcome"], record["wal"]["found"]) == ("failed", 1)


def test_all_that_is_whole_is_read_within_the_bound_and_then_again(archive):
    whole(archive, "s3", range(1, 6))
    archive.keep("00000002.history", b"1\t0/300000\tx\n")
    archive.ship()
    bounded(archive, 4)
    seen = []
    for _night in range(3):
        archive.world.now += timedelta(days=1)
        result = verify(archive, "s3")
        seen.append((result["wal"]["read"], result["wal"]["left"], result["wal"]["files"]))
        assert result["wal"]["damaged"] == []
    assert seen == [(4, 2, 6), (4, 0, 6), (4, 0, 6)]
    assert "Read 4 WAL files" in show.verify(result)


def bounded(archive: Archive, most: int) -> None:
    config = archive.world.config
    archive.world.config = replace(config, verify=replace(config.verify, wal_files=most))


def test_what_no_base_backup_needs_is_not_read_and_a_dump_alone_reads_nothing(archive):
    for number in range(1, 4):
        archive.segment(number)
    dump = archive.world.add("s3", NOW - 2 * HOUR)
    archive.ship()
    assert "wal" not in verify(archive, "s3")
    archive.base("s3", NOW - HOUR, 3)
    assert verify(archive, "s3")["wal"]["files"] == 1
    assert "wal" not in verify(archive, "s3", sets=(dump,))
    planned = verify(archive, "s3", dry_run=True)
    assert (planned["wal"]["read"], planned["wal"]["files"]) == (1, 1)
    assert "Would read 1 WAL file " in show.verify(planned)
    assert verify(archive, "s3", sets=("unverified",))["wal"]["passed"] == 1
    bounded(archive, 0)
    assert "wal" not in verify(archive, "s3")


def test_with_a_younger_base_backup_old_damage_is_told_and_fails_no_more_nights(archive):
    paths = whole(archive, "s3")
    alter(archive, "s3", paths[2], "flipped")
    with pytest.raises(DamagedError):
        verify(archive, "s3")
    with pytest.raises(DamagedError):
        verify(archive, "s3")
    archive.base("s3", NOW - timedelta(minutes=30), 4)
    result = verify(archive, "s3")
    assert (result["wal"]["found"], len(result["wal"]["damaged"])) == (0, 1)
    held = survey(archive.world.context(), ("s3",))[0].held(pytest.fail)
    assert (held.damaged, held.open_damage) == ([segment_name(1, 3, SIZE)], [])
    assert holding("s3", held, unmended=True).damaged == []


def test_a_gap_is_left_out_only_where_its_damage_is_shown(archive):
    paths = whole(archive, "s3")
    alter(archive, "s3", paths[2], "flipped")
    with pytest.raises(DamagedError):
        verify(archive, "s3")
    held = survey(archive.world.context(), ("s3",))[0].held(pytest.fail)
    seen = holding("s3", held, unmended=True)
    assert (seen.damaged, seen.gaps) == ([segment_name(1, 3, SIZE)], [])
    # Made up for on one branch, and open on another: it is missing there.
    held.open_damage.clear()
    seen = holding("s3", held, unmended=True)
    assert (seen.damaged, seen.gaps) == ([], [segment_name(1, 3, SIZE)])


def test_the_shipping_sends_again_what_is_damaged_there_and_whole_here(archive):
    paths = whole(archive, "s3")
    alter(archive, "s3", paths[2], "flipped")
    with pytest.raises(DamagedError):
        verify(archive, "s3")
    archive.world.now += timedelta(minutes=1)
    assert archive.ship()["sent"] == 1
    # Whatever is written again is unread, and so no longer known to be damaged.
    assert survey(archive.world.context(), ("s3",))[0].held(pytest.fail).damaged == []
    result = verify(archive, "s3")
    assert (result["wal"]["damaged"], result["wal"]["read"]) == ([], 5)


def test_a_recovery_counts_a_damaged_segment_where_another_place_has_it_whole(archive):
    paths = whole(archive, "s3")
    alter(archive, "s3", paths[2], "flipped")
    with pytest.raises(DamagedError):
        verify(archive, "s3")
    context = archive.world.context()
    bases = survey(context, ("s3",))[0].held(pytest.fail).bases
    assert windows_of(context, bases)[-1].stretches[-1].end == 6 * SIZE
    (archive.home / paths[2]).unlink()
    assert windows_of(context, bases)[-1].stretches[-1].end == 3 * SIZE


def test_a_segment_that_is_another_ones_is_damage_though_its_hash_is_right(archive):
    paths = whole(archive, "local", range(1, 3))
    content = pack.unpack((archive.home / paths[1]).read_bytes())
    for number, altered in (
        (3, content),
        (4, bytes(2) + content[2:]),
        (5, content[: SIZE // 2]),
    ):
        archive.keep(segment_name(1, number, SIZE), bytes(altered))
    with pytest.raises(DamagedError) as caught:
        verify(archive, "local")
    said = [one["problem"] for one in caught.value.details["wal"]["damaged"]]
    assert len(said) == 3
    assert "another position" in said[0]
    assert "does not begin as a WAL segment" in said[1]
    with pytest.raises(Exception, match="power of two"):
        check_segment(segment_name(1, 5, SIZE), content[: SIZE - 5], SYSTEM)


def test_a_place_that_goes_away_while_it_is_read_leaves_what_was_read(archive, monkeypatch):
    paths = whole(archive, "s3", range(1, 6))
    monkeypatch.setattr(reading, "_BATCH", 1)
    real, count = archive.world.memory.stream, iter(range(100))

    def stream(path, **options):
        if next(count) >= 3:
            archive.world.memory.down = True
        return real(path, **options)

    monkeypatch.setattr(reading, "_AT_ONCE", 1)
    whole_set = verify(archive, "s3")  # the sets themselves are read before
    assert whole_set["wal"]["left"] == 0
    archive.world.memory.stored.update(
        {path: (blob, NOW + HOUR) for path, (blob, _when) in archive.world.memory.stored.items() if path in paths}
    )
    monkeypatch.setattr(archive.world.memory, "stream", stream)
    with pytest.raises(UnreachableError):
        verify(archive, "s3", sets=("unverified",))
    archive.world.memory.down = False
    monkeypatch.setattr(archive.world.memory, "stream", real)
    known = proofs.remembered(archive.world.context().state, "s3", "s3://bucket/db1")
    marks = {
        entry.path: proofs.mark_of(entry)
        for entry in archive.world.memory.entries("wal").values()
        if entry.path in known
    }
    assert 0 < left(marks, known) < 5


def test_one_that_is_gone_when_it_is_its_turn_is_passed_over(archive, monkeypatch):
    paths = whole(archive, "local", range(1, 4))
    real = reading.problem_in

    def problem_in(place, path, decrypt):
        if path == paths[1]:
            (archive.home / path).unlink(missing_ok=True)
        return real(place, path, decrypt)

    monkeypatch.setattr(reading, "problem_in", problem_in)
    wal = verify(archive, "local")["wal"]
    assert (wal["damaged"], wal["read"], wal["passed"]) == ([], 2, 2)


def test_what_keeps_it_from_one_file_keeps_it_from_no_other_and_hides_no_damage(archive, monkeypatch):
    paths = whole(archive, "local", range(1, 5))
    real = reading.problem_in

    def problem_in(place, path, decrypt):
        if path == paths[3]:
            raise UsageError("age: error: no identity matched any of the recipients")
        return real(place, path, decrypt)

    monkeypatch.setattr(reading, "problem_in", problem_in)
    with pytest.raises(UsageError, match="no identity matched"):
        verify(archive, "local")
    known = proofs.remembered(archive.world.context().state, "local", str(archive.home))
    assert sorted(known) == paths[:3]
    alter(archive, "local", paths[1], "flipped")
    with pytest.raises(DamagedError) as caught:
        verify(archive, "local")
    assert [one["file"] for one in caught.value.details["wal"]["damaged"]] == [paths[1]]
    assert (caught.value.details["wal"]["read"], caught.value.details["wal"]["passed"]) == (3, 2)


def test_a_place_that_is_gone_is_not_asked_for_each_file(archive, monkeypatch):
    whole(archive, "local", range(1, 20))
    asked: list[str] = []

    def gone(_place, path, _decrypt):
        asked.append(path)
        raise UnreachableError("The store does not answer.")

    monkeypatch.setattr(reading, "problem_in", gone)
    monkeypatch.setattr(reading, "_BATCH", 1)
    with pytest.raises(UnreachableError, match="does not answer"):
        verify(archive, "local")
    assert len(asked) == reading._GONE


def test_damaged_sets_are_told_also_where_the_wal_cannot_be_read(archive, monkeypatch):
    whole(archive, "local", range(1, 3))
    (manifest,) = (archive.home / "sets").glob("*/manifest.json")
    victim = next(p for p in sorted(manifest.parent.rglob("*")) if p.is_file() and p.parent != manifest.parent)
    victim.write_bytes(b"other")

    def gone(*_unused, **_options):
        raise UnreachableError("The store does not answer.")

    monkeypatch.setattr(verify_verb, "verify_wal", gone)
    with pytest.raises(DamagedError, match="1 of 1 sets") as caught:
        verify(archive, "local")
    assert any("The store does not answer" in said for said in caught.value.details["warnings"])


def test_damage_counts_where_nobody_can_tell_whether_it_is_made_up_for(archive, monkeypatch):
    paths = whole(archive, "local", range(1, 6))
    alter(archive, "local", paths[1], "flipped")
    archive.base("local", NOW - timedelta(minutes=30), 3)
    with pytest.raises(DamagedError):
        verify(archive, "local")
    assert verify(archive, "local")["wal"]["found"] == 0
    alter(archive, "local", paths[4], "flipped")
    with pytest.raises(DamagedError) as caught:
        verify(archive, "local")
    # What matters comes first, whatever its name.
    assert [one["file"] for one in caught.value.details["wal"]["damaged"]] == [paths[4], paths[1]]
    monkeypatch.setattr(reading, "look", lambda *_unused, **_options: Held(error="The store does not answer."))
    with pytest.raises(DamagedError) as caught:
        verify(archive, "local")
    assert caught.value.details["wal"]["found"] == 2


@pytest.mark.parametrize(("code", "raised"), [(errno.EIO, DamagedError), (errno.EACCES, UnreachableError)])
def test_a_disk_that_cannot_read_a_file_is_damage_and_a_missing_right_is_not(archive, monkeypatch, code, raised):
    whole(archive, "local", range(1, 3))

    def refuse(*_unused):
        raise OSError(code, "refused")

    monkeypatch.setattr(reading, "problem_in", refuse)
    with pytest.raises(raised, match="cannot be read: refused"):
        verify(archive, "local")


def test_that_nothing_can_be_remembered_is_a_warning(archive, monkeypatch):
    whole(archive, "local", range(1, 3))

    def full(*_unused):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(reading, "remember", full)
    assert any("could not be remembered" in said for said in verify(archive, "local")["warnings"])


def test_encrypted_files_are_not_read_without_the_key_and_a_wrong_key_is_no_damage(archive):
    whole(archive, "local", range(1, 3))
    (path,) = [one for one in archive.here() if segment_name(1, 2, SIZE) in one]
    sealed = path.rpartition(".")[0] + ".zst.age"
    (archive.home / path).rename(archive.home / sealed)
    (archive.home / sealed).write_bytes(b"age-encryption.org/v1\n")
    result = verify(archive, "local")
    assert (result["wal"]["sealed"], result["wal"]["read"]) == (1, 1)
    assert any("1 encrypted WAL files" in said for said in result["warnings"])

    def wrong(_blob: bytes) -> bytes:
        raise CommandError("age: error: no identity matched any of the recipients")

    def broken(_blob: bytes) -> bytes:
        raise CommandError("age: error: failed to decrypt and authenticate payload chunk")

    with pytest.raises(UsageError, match="no identity matched"):
        proofs.problem_in(archive.world.context().local, sealed, wrong)
    assert "cannot be decrypted" in proofs.problem_in(archive.world.context().local, sealed, broken)


def test_a_name_without_a_place_in_the_log_is_never_made_up_for():
    assert not made_up_for("00000002.history", [], SIZE)
    assert not made_up_for("nothing", [], SIZE)
