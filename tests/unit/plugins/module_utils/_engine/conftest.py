# SPDX-License-Identifier: GPL-3.0-or-later
"""A small world for unit tests: a context with a clock that is set by hand, the real local place, and a store in memory."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Optional

import pytest
from hypothesis import settings

from ansible_collections.pgops.backup.plugins.module_utils._engine import config
from ansible_collections.pgops.backup.plugins.module_utils._engine.context import Context
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import (
    DamagedError,
    MissingError,
    UnreachableError,
)
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.manifest import (
    NAME,
    Base,
    Database,
    File,
    Manifest,
    Payload,
    content_hash,
)
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.naming import set_id
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.times import iso
from ansible_collections.pgops.backup.plugins.module_utils._engine.places import evidence
from ansible_collections.pgops.backup.plugins.module_utils._engine.places.base import SETS, Entry, Place

settings.register_profile("pgops", deadline=None, database=None, print_blob=True)
settings.load_profile("pgops")

NOW = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)


class MemoryPlace(Place):
    """Stands for the S3 place in tests of verbs: the same interface, in memory. `down` makes it unreachable."""

    name = "s3"
    root = "s3://bucket/db1"

    def __init__(self, clock: Any) -> None:
        self.stored: dict[str, tuple[bytes, datetime]] = {}
        self.down = False
        self.deleted: list[str] = []
        self._clock = clock

    def _answer(self) -> None:
        if self.down:
            raise UnreachableError("The store does not answer.", hint="Check the network.")

    def entries(self, prefix: str) -> dict[str, Entry]:
        self._answer()
        return {
            path: Entry(path, len(content), modified, hashlib.md5(content, usedforsecurity=False).hexdigest())
            for path, (content, modified) in sorted(self.stored.items())
            if path.startswith(prefix + "/")
        }

    def read(self, path: str) -> bytes:
        self._answer()
        if path not in self.stored:
            raise MissingError("There is no %s in %s." % (path, self.root))
        return self.stored[path][0]

    def stream(self, path: str, *, progress: Any = None) -> Iterator[bytes]:
        yield self.read(path)

    def write(self, path: str, content: bytes) -> None:
        self._answer()
        self.stored[path] = (content, self._clock())

    def store_all(self, jobs: Iterable[tuple[File, Path]]) -> None:
        for file, source in jobs:
            self.write(file.path, source.read_bytes())

    def delete(self, paths: Iterable[str]) -> None:
        self._answer()
        for path in paths:
            if self.stored.pop(path, None) is not None:
                self.deleted.append(path)

    def delete_set(self, set_id: str) -> int:
        found = self.entries("%s/%s" % (SETS, set_id))
        self.delete(sorted(found, key=lambda path: not path.endswith("/" + NAME)))
        return sum(entry.size for entry in found.values())

    def fetch(self, set_id: str, file: File, target: Path, *, progress: Any = None) -> None:
        target.write_bytes(self.read("%s/%s/%s" % (SETS, set_id, file.path)))

    def check_file(self, set_id: str, file: File, *, progress: Any = None) -> str:
        if hashlib.sha256(self.read("%s/%s/%s" % (SETS, set_id, file.path))).hexdigest() != file.sha256:
            raise DamagedError("%s is damaged." % file.path)
        return "read"


class WorldContext(Context):
    """The real context, but its S3 place is the one in memory."""

    memory: MemoryPlace

    def s3(self) -> Any:
        return self.memory


class World:
    """Two places and a clock."""

    NOW = NOW

    def __init__(self, tmp_path: Path, **sections: Any) -> None:
        self.now = NOW
        data = {
            "instance": "db1",
            "local": {"path": str(tmp_path / "backups")},
            "s3": {"bucket": "bucket"},
            "state_dir": str(tmp_path / "state"),
            "log_dir": str(tmp_path / "log"),
            "backup": {"min_free": "1"},
        }
        self.config = config.build(config.merge(data, sections), environ={}, host="host1")
        if sections.get("s3", {}) is None:
            assert self.config.s3 is None
        self.memory = MemoryPlace(lambda: self.now)

    def context(self) -> WorldContext:
        """A new context, as each run of a verb has one."""
        context = WorldContext(self.config, "host1", clock=lambda: self.now)
        context.memory = self.memory
        return context

    def place(self, name: str) -> Place:
        return self.memory if name == "s3" else self.context().local

    def manifest(self, when: datetime, *, kind: str = "logical", payload: bytes = b"data", **values: Any) -> Manifest:
        file = File("databases/orders.dump", len(payload), hashlib.sha256(payload).hexdigest())
        facts: dict[str, Any] = {
            "id": set_id(when, kind),
            "instance": "db1",
            "kind": kind,
            "started": iso(when),
            "finished": iso(when + timedelta(minutes=5)),
            "system_identifier": "7300000000000000001",
            "server_version": "18.3",
            "server_version_num": 180003,
            "tools": {"pg_dump": "18.3"},
            "engine": "0.1.0",
            "files": (file,),
            "databases": (Database("orders", Payload("databases/orders.dump", "custom"), {}),),
        }
        if kind != "logical":
            tar = Payload("base/base.tar", "tar")
            facts["files"] = (File(tar.path, file.size, file.sha256),)
            facts["databases"] = ()
            facts["timeline"], facts["wal_start"], facts["wal_end"] = 1, "0/2000028", "0/2000120"
            facts["base"] = Base(tar, iso(when + timedelta(minutes=5)), 750, 16 * 1024 * 1024, 1024, True, "SHA256")
        return Manifest(**{**facts, **values})

    def add(self, place: str, when: datetime, *, payload: bytes = b"data", **values: Any) -> str:
        """Put a whole set into `place`, as a backup or sync would."""
        manifest = self.manifest(when, payload=payload, **values)
        if place == "s3":
            for file in manifest.files:
                self.memory.write("%s/%s/%s" % (SETS, manifest.id, file.path), payload)
            self.memory.write("%s/%s/%s" % (SETS, manifest.id, NAME), manifest.encode())
            return manifest.id
        with self.context().local.new_set(manifest.id) as folder:
            for file in manifest.files:
                (folder / file.path).parent.mkdir(parents=True, exist_ok=True)
                (folder / file.path).write_bytes(payload)
            (folder / NAME).write_bytes(manifest.encode())
        return manifest.id

    def prove(
        self,
        place: str,
        set_id: str,
        *,
        level: str = "restore",
        outcome: str = "passed",
        when: Optional[datetime] = None,
        at: str = "",
    ) -> str:
        """Store evidence about a set that `place` holds; `at` is the place whose evidence room takes it."""
        report = {
            "set": set_id,
            "content": content_hash(self.place(place).read("%s/%s/%s" % (SETS, set_id, NAME))),
            "place": place,
            "level": level,
            "outcome": outcome,
            "finished": iso(when or self.now),
        }
        return evidence.store(self.place(at or place), report)

    def ids(self, place: str) -> list[str]:
        """The sets with a manifest that `place` holds, the newest first."""
        found = self.place(place).entries(SETS)
        return sorted((path.split("/")[1] for path in found if path.endswith("/" + NAME)), reverse=True)


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Local and S3 place with the default retention: 7 and 30 days."""
    return World(tmp_path)


@pytest.fixture
def make_world(tmp_path: Path) -> Any:
    """A world with other configuration sections."""
    return lambda **sections: World(tmp_path, **sections)


@pytest.fixture
def as_ordinary_user() -> Iterator[None]:
    """Run the test as nobody when root runs it, as root may do what permissions forbid."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
