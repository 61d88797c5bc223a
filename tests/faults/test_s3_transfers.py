# SPDX-License-Identifier: GPL-3.0-or-later
"""Transfers that break: what passes is sat out, what does not ends as unreachable, and no finished part is sent twice."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from demo.servers import RcloneS3
from tests.faults.two_places import (  # noqa: F401  # pylint: disable=unused-import  # fixtures
    CountingProxy,
    Host,
    host_at_each,
    host_at_moto,
    proxied,
)
from tests.integration.conftest import wait_for
from tests.integration.s3_fixtures import (
    BUCKET,
    MIB,
    Asked,
    Cut,
    CutAnswer,
    Fault,
    Kit,
    LoseAnswer,
    Refuse,
    Stall,
    times,
)

PART = 5 * MIB
LARGE = {"large": 4 * PART + 3 * MIB, "small": 1000}
BUSY = Refuse(503, "SlowDown")


def first_of_each(count: int, fault: Fault) -> Callable[[Asked], Fault]:
    """Return a decision that applies `fault` to the first `count` requests of every kind and key."""
    seen: dict[tuple[str, str, int], int] = {}
    lock = threading.Lock()

    def decide(asked: Asked) -> Fault:
        with lock:
            key = (asked.kind, asked.path, asked.part)
            seen[key] = seen.get(key, 0) + 1
            return fault if seen[key] <= count else None

    return decide


# --- 503 --------------------------------------------------------------------------------------------------------------


def test_a_short_storm_of_503_is_sat_out_both_ways(moto_host: Host) -> None:
    host = moto_host
    set_id = host.make_set(sizes=LARGE)
    host.proxy.hurt(first_of_each(2, BUSY))
    assert host.succeeds("sync")["sets"] == [set_id]
    assert host.proxy.parts_sent() == [n for n in (1, 2, 3, 4, 5) for _unused in range(3)]
    host.is_whole_there(set_id)
    host.lose_local()
    host.proxy.hurt(first_of_each(2, BUSY))
    assert host.succeeds("sync", "--pull")["sets"] == [set_id]
    host.is_whole_here(set_id)


@pytest.mark.parametrize("fault", [BUSY, Refuse(500, "InternalError")])
def test_an_endless_storm_ends_as_unreachable(moto_host: Host, fault: Refuse) -> None:
    host = moto_host
    set_id = host.make_set()
    host.proxy.hurt(lambda asked: fault)
    text = host.fails("sync", code=4, said=r"could not do ListObjectsV2 \(%s\), also when asked again" % fault.code)
    assert "Run it again later" in text or "again" in text.partition("→")[2]
    assert 3 < len(host.proxy.asked) < 60, "it asks again, and not for ever"
    assert host.kit.raw_paths() == []
    host.proxy.heal()
    assert host.succeeds("sync")["sets"] == [set_id]


# --- sending ----------------------------------------------------------------------------------------------------------


def test_a_part_that_is_cut_is_sent_again_alone(moto_host: Host) -> None:
    host = moto_host
    set_id = host.make_set(sizes=LARGE)
    host.proxy.hurt(times(2, Cut(MIB), lambda asked: asked.part == 3))
    assert host.succeeds("sync")["sets"] == [set_id]
    assert host.proxy.parts_sent() == [1, 2, 3, 3, 3, 4, 5]
    host.is_whole_there(set_id)


def test_an_upload_that_breaks_goes_on_in_the_next_run_where_it_broke(host: Host) -> None:
    set_id = host.make_set(sizes=LARGE)
    host.proxy.hurt(lambda asked: Cut(MIB) if asked.part > 2 else None)
    host.fails("sync", code=4, said="connection to the store at .* broke during UploadPart")
    assert host.published() == []
    assert host.unfinished_uploads() == [host.stored(set_id, "large")], "the next run takes it up"
    host.proxy.heal()
    result = host.succeeds("sync")
    assert result["sets"] == [set_id]
    assert host.proxy.parts_sent() == [3, 4, 5]
    # What was finished before the break is not sent again: the wire saw the other parts, and a manifest.
    rest = LARGE["large"] - 2 * PART
    assert rest <= host.proxy.bytes_sent() < rest + 64 * 1024
    assert result["bytes_sent"] < rest + 64 * 1024
    host.is_whole_there(set_id)
    host.proxy.heal()
    assert not host.succeeds("sync")["changed"]
    assert host.proxy.bytes_sent() == 0


def test_a_set_that_breaks_between_two_files_goes_on_with_the_second(moto_host: Host) -> None:
    host = moto_host
    host.program.configure(s3={"concurrency": 1})
    set_id = host.make_set(sizes={"a": 3 * MIB, "b": 3 * MIB, "c": 3 * MIB})
    host.proxy.hurt(lambda asked: Cut(1000) if asked.path.endswith("/c") and asked.method == "PUT" else None)
    host.fails("sync", code=4, said="broke during PutObject")
    assert host.published() == []
    host.proxy.heal()
    result = host.succeeds("sync")
    assert (result["sets"], result["files_skipped"]) == ([set_id], 2)
    assert host.proxy.bytes_sent() < 3 * MIB + 64 * 1024
    host.is_whole_there(set_id)


def test_an_upload_that_cannot_be_taken_up_leaves_none_behind(moto_host: Host) -> None:
    """The store forgets the upload, as one that expires: the file is sent anew and nothing stays unfinished."""
    host = moto_host
    set_id = host.make_set(sizes=LARGE)
    host.proxy.hurt(lambda asked: Cut(MIB) if asked.part > 2 else None)
    host.fails("sync", code=4, said="broke during UploadPart")
    gone = times(1, Refuse(404, "NoSuchUpload"), lambda asked: asked.part == 3)
    host.proxy.hurt(gone)
    assert host.succeeds("sync")["sets"] == [set_id]
    host.is_whole_there(set_id)


def test_a_sync_of_many_small_files_is_interrupted_within_an_answer_and_the_next_comes_through_a_storm(
    moto_host: Host,
) -> None:
    """They go by one thread, which knows plain success only: no 503, no answer that stops, is lost or breaks off."""
    host, stall = moto_host, Stall(threading.Event(), threading.Event())
    sizes = {"t/%02d" % number: 100 + number for number in range(36)}
    set_id = host.make_set(sizes=sizes)
    host.proxy.hurt(lambda asked: stall if asked.kind == "put" and asked.path.endswith("/t/30") else None)
    process = host.program.start("sync")
    try:
        assert stall.begun.wait(60)
        process.send_signal(signal.SIGINT)
        _out, said = process.communicate(timeout=40)  # an answer has a minute
    finally:
        process.kill()
        stall.over.set()
    assert (process.returncode, "pgops sync was interrupted" in said) == (1, True), said
    record = host.record()
    assert (record["verb"], record["outcome"], record["exit_code"]) == ("sync", "interrupted", 1)
    assert host.published() == []
    host.is_tidy()
    faults = (BUSY, LoseAnswer(), Cut(10), None)
    once = {path: times(1, faults[n % 4], lambda asked: asked.kind == "put") for n, path in enumerate(sizes)}
    host.proxy.hurt(lambda asked: once.get(asked.path.partition(set_id + "/")[2], once["t/03"])(asked))
    assert host.succeeds("sync")["sets"] == [set_id]
    host.is_whole_there(set_id)
    sent = [asked.path for asked in host.proxy.asked if asked.kind == "put" and "/t/" in asked.path]
    assert len(sent) <= 3 * len(sizes), "what did not come through is sent again, and no more"


# --- receiving --------------------------------------------------------------------------------------------------------


def test_a_download_that_is_cut_goes_on_at_the_broken_byte(moto_host: Host) -> None:
    host = moto_host
    set_id = host.make_set(sizes=LARGE)
    host.succeeds("sync")
    host.lose_local()
    total, cuts, lost = sum(LARGE.values()), 4, MIB
    host.proxy.hurt(times(cuts, CutAnswer(lost), lambda asked: asked.kind == "get" and asked.path.endswith("/large")))
    assert host.succeeds("sync", "--pull")["sets"] == [set_id]
    host.is_whole_here(set_id)
    # Whatever a cut answer had brought is at most fetched once more; no stretch that had arrived is.
    assert total <= host.proxy.bytes_received() <= total + cuts * lost + 64 * 1024


def test_a_large_file_whose_pull_broke_or_was_killed_is_fetched_from_there_on(moto_host: Host) -> None:
    host, size = moto_host, 64 * MIB
    set_id = host.make_set(sizes={"large": size})
    host.succeeds("sync")
    host.lose_local()
    host.program.configure(s3={"concurrency": 1})

    def begin_of(asked: Asked) -> int:
        return int(asked.headers.get("range", "bytes=0-").removeprefix("bytes=").split("-")[0])

    host.proxy.hurt(lambda asked: CutAnswer(0) if asked.kind == "get" and begin_of(asked) >= 4 * PART else None)
    host.fails("sync", "--pull", code=4, said="connection to the store at .* broke during GetObject")
    folder = host.site.home / "sets" / (".unfinished-pull-" + set_id)

    def parts() -> int:
        return len({line.split()[0] for line in (folder / ".large.fetched").read_text().splitlines()[1:] if line})

    assert parts() == 4
    over = threading.Event()

    def hold(asked: Asked) -> Fault:
        return Cut(0) if asked.kind == "get" and begin_of(asked) >= 8 * PART and over.wait(120) else None

    host.proxy.hurt(hold)
    process = host.program.start("sync", "--pull", "--json")
    wait_for(lambda: parts() == 8 or process.poll() is not None, seconds=60)
    assert process.poll() is None
    process.kill()
    process.communicate(timeout=60)
    over.set()
    assert 4 * PART <= host.proxy.bytes_received() < 4 * PART + 64 * 1024, (
        "what had come before the cut did not come again"
    )
    with (folder / "large").open("r+b") as stream:  # the second part is hurt here
        stream.seek(PART)
        byte = stream.read(1)
        stream.seek(PART)
        stream.write(bytes([byte[0] ^ 1]))
    host.proxy.heal()
    result = host.succeeds("sync", "--pull")
    assert (result["sets"], result["bytes_sent"]) == ([set_id], size - 7 * PART)
    assert size - 7 * PART <= host.proxy.bytes_received() < size - 7 * PART + 64 * 1024
    assert sorted(path.name for path in host.site.set_folder(set_id).iterdir()) == ["large", "manifest.json"]
    host.is_whole_here(set_id)


def test_a_download_that_breaks_for_good_leaves_no_set(host: Host) -> None:
    set_id = host.make_set(sizes={"a": 100_000, "b": 1000})
    host.succeeds("sync")
    host.lose_local()
    host.proxy.hurt(lambda asked: CutAnswer(0) if asked.kind == "get" and asked.path.endswith("/a") else None)
    host.fails("sync", "--pull", code=4, said="connection to the store at .* broke during GetObject")
    assert 3 < host.proxy.kinds().count("get") < 60
    assert [name for name in host.site.sets() if not name.startswith(".")] == []
    host.proxy.heal()
    assert host.succeeds("sync", "--pull")["sets"] == [set_id]
    host.is_whole_here(set_id)


def test_a_server_that_is_ended_within_a_transfer_and_comes_back_is_sat_out(tmp_path: Path) -> None:
    """It stays away for more requests than six tries make, and than half a minute allows for."""
    with RcloneS3(tmp_path) as server:
        server.create_bucket(BUCKET)
        with proxied(Kit(server, "rclone", tmp_path), tmp_path) as host:
            set_id = host.make_set(sizes={"large": 8 * MIB, "small": 1000})
            host.succeeds("sync")
            host.lose_local()
            # The minutes of this program are short, so it gets many of them.
            host.program.configure(s3={"retry_for": "12h"})
            away = threading.Event()

            def end_it(asked: Asked) -> Fault:
                if asked.path.endswith("/large") and asked.kind == "get" and not away.is_set():
                    away.set()
                    server.end()
                return None

            host.proxy.hurt(end_it)
            process = host.program.start("sync", "--pull", "--json")
            wait_for(lambda: len(host.proxy.asked) > 60 or process.poll() is not None, seconds=120)
            assert process.poll() is None
            assert away.is_set()
            server.begin()
            out, err = process.communicate(timeout=120)
            assert process.returncode == 0, err
            assert json.loads(out)["sets"] == [set_id]
            host.is_tidy()
            host.is_whole_here(set_id)


def test_a_verification_sits_out_cuts_and_an_unreachable_store_is_no_verdict(moto_host: Host) -> None:
    host = moto_host
    host.make_set(sizes={"a": 3 * MIB})
    host.succeeds("sync")
    verify = ("verify", "--place", "s3", "--level", "checksum")
    host.proxy.hurt(times(3, CutAnswer(MIB // 2), lambda asked: asked.kind == "get" and asked.path.endswith("/a")))
    (report,) = host.succeeds(*verify)["sets"]
    assert (report["outcome"], report["level"]) == ("passed", "checksum")
    host.proxy.hurt(lambda asked: CutAnswer(0) if asked.kind == "get" and asked.path.endswith("/a") else None)
    host.fails(*verify, code=4, said="could not be proven, which is no verdict.*broke during GetObject")
    host.proxy.heal()
    assert host.succeeds(*verify)["sets"][0]["outcome"] == "passed"


# --- two at once ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("sync",), ("sync",)),
        (("sync", "--pull"), ("sync",)),
        (("verify", "--place", "s3", "--level", "checksum"), ("verify", "--place", "local", "--level", "checksum")),
    ],
    ids=["two pushes", "a push during a pull", "two verifications"],
)
def test_a_second_one_at_once_is_told_who_is_at_work(
    moto_host: Host, first: tuple[str, ...], second: tuple[str, ...]
) -> None:
    """The first is held in the midst of a file; the second ends at once and leaves it alone."""
    host, held, gate = moto_host, threading.Event(), threading.Event()
    set_id = host.make_set()
    if first != ("sync",):
        host.succeeds("sync")
    if first == ("sync", "--pull"):
        host.lose_local()

    def holds(asked: Asked) -> None:
        if asked.kind in ("get", "part", "put") and asked.path.endswith("/large"):
            held.set()
            gate.wait(120)

    host.proxy.hurt(holds)
    process = host.program.start(*first)
    try:
        assert held.wait(60)
        busy = host.program.json(*second, code=3)
        assert "%s of %s, process %d, since 20" % (first[0], host.site.instance, process.pid) in busy["message"]
        assert busy["hint"] == "Try again when it has ended."
        turned_away = [(r["verb"], r["exit_code"]) for r in host.site.records() if r["outcome"] == "busy"]
        assert turned_away == [(second[0], 3)]
    finally:
        gate.set()
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0, (out, err)
    ended = [(r["verb"], r["outcome"]) for r in host.site.records()]
    assert ended.count((first[0], "ok")) == (2 if first == ("sync", "--pull") else 1)
    host.is_whole_there(set_id)
    host.is_whole_here(set_id)
    host.is_tidy()
    host.proxy.heal()
    host.succeeds(*second)
