# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import gzip
import hashlib
import shutil
import sys
from pathlib import Path

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine.config import build
from ansible_collections.pgops.backup.plugins.module_utils._engine.context import Context
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import (
    CommandError,
    DamagedError,
    MissingError,
)
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.manifest import NAME, File, Manifest, Payload
from ansible_collections.pgops.backup.plugins.module_utils._engine.places.catalog import Catalog
from ansible_collections.pgops.backup.plugins.module_utils._engine.source import Source
from ansible_collections.pgops.backup.plugins.module_utils._engine.system.runner import Command

TEXT = b"".join(hashlib.sha256(b"%d" % i).hexdigest().encode() + b"\n" for i in range(200_000))
DUMP = Payload("globals.sql.gz", "plain", "gzip", ("gzip",))
SET = "20261122T020000Z-logical"


def source_of(tmp_path: Path, stored: bytes, *, listed: bytes) -> Source:
    """A set of one gzip file whose bytes are `stored`; its manifest speaks of the bytes `listed`."""
    config = {
        "instance": "db1",
        "local": {"path": str(tmp_path / "backups")},
        "state_dir": str(tmp_path / "state"),
        "log_dir": str(tmp_path / "log"),
    }
    context = Context(build(config, environ={}, host="h"), "h")
    when = "2026-11-22T02:00:00+00:00"
    manifest = Manifest(
        id=SET,
        instance="db1",
        kind="logical",
        started=when,
        finished=when,
        system_identifier="1",
        server_version="18.4",
        server_version_num=180004,
        tools={"pg_dump": "18.4"},
        engine="0.1.0",
        files=(File(DUMP.path, len(listed), hashlib.sha256(listed).hexdigest()),),
        globals=DUMP,
    )
    with context.local.new_set(SET) as folder:
        (folder / DUMP.path).write_bytes(stored)
        (folder / NAME).write_bytes(manifest.encode())
    return Source(context, Catalog(context.local), SET)


def test_a_payload_comes_out_of_its_wrappers(tmp_path: Path) -> None:
    packed = gzip.compress(TEXT)
    source = source_of(tmp_path, packed, listed=packed)
    assert b"".join(source.plain(DUMP)) == TEXT
    assert source.content_of(DUMP) == TEXT


def test_a_wrapper_that_breaks_off_never_looks_like_the_end(tmp_path: Path) -> None:
    """A reader that acts at the end of its input (psql in one transaction) must not see one."""
    packed = gzip.compress(TEXT)[:-20_000]
    source = source_of(tmp_path, packed, listed=packed)
    seen = tmp_path / "seen"
    reader = "import sys; data = sys.stdin.buffer.read(); open(%r, 'wb').write(data)" % str(seen)
    with pytest.raises(CommandError, match="gzip"):
        source.context.runner.pipe([Command((sys.executable, "-c", reader))], source=source.plain(DUMP))
    assert not seen.exists()


def test_bytes_that_the_manifest_does_not_know_never_look_like_the_end(tmp_path: Path) -> None:
    source = source_of(tmp_path, gzip.compress(TEXT), listed=gzip.compress(TEXT, 1))
    with pytest.raises(DamagedError):
        list(source.plain(DUMP))


def test_who_stops_reading_leaves_no_program_behind(tmp_path: Path) -> None:
    packed = gzip.compress(TEXT * 5)
    source = source_of(tmp_path, packed, listed=packed)
    chunks = source.plain(DUMP)
    assert next(chunks)
    chunks.close()  # type: ignore[attr-defined]
    children = [pid for path in Path("/proc/self/task").glob("*/children") for pid in path.read_text().split()]
    assert "gzip" not in {Path("/proc/%s/comm" % pid).read_text().strip() for pid in children}


def test_a_set_that_is_removed_while_it_is_read_is_told_as_such(tmp_path: Path) -> None:
    """Of one file that is missing in a set which is there nothing of that kind is said."""
    source = source_of(tmp_path, TEXT, listed=TEXT)
    folder = source.context.local.path("sets") / SET
    (folder / DUMP.path).unlink()
    with pytest.raises(MissingError) as caught:
        list(source.chunks(source.manifest.files[0]))
    assert "while it was read" not in caught.value.message
    shutil.rmtree(folder)
    with pytest.raises(MissingError, match=r"was removed from .* while it was read") as caught:
        list(source.chunks(source.manifest.files[0]))
    assert "pgops pin" in caught.value.hint
