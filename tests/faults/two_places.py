# SPDX-License-Identifier: GPL-3.0-or-later
"""A host with a local place and one in S3, its program, a proxy that hurts, and what must hold after every run."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.manifest import Manifest
from demo.servers import MotoS3, RcloneS3
from tests.faults.aftermath import unfinished
from tests.integration.cli_fixtures import HURRY, Program
from tests.integration.conftest import Site
from tests.integration.s3_fixtures import BUCKET, MIB, Asked, CutAnswer, Fault, Kit, Proxy, _Handler, make_set

# A stand-in for tests without PostgreSQL: nobody listens there.
NOWHERE = SimpleNamespace(
    host="127.0.0.1", port=9, user="nobody", password="never-asked-for", bindir=Path("/nonexistent")
)


class _Counting(_Handler):
    """Counts the bytes of bodies, and spares big answers the detour through memory of the fault-free proxy."""

    proxy: CountingProxy

    def _answer(self, status: int, headers: dict[str, str], content: bytes, fault: Fault = None) -> None:
        if self.command == "GET" and "/sets/" in self.path:
            passed = min(len(content), fault.after) if isinstance(fault, CutAnswer) else len(content)
            self.proxy.received.append((self.path.partition("?")[0], passed))
        super()._answer(status, headers, content, fault)


class CountingProxy(Proxy):
    """A proxy that knows how many bytes of payload went each way."""

    def __enter__(self) -> Self:
        self.received: list[tuple[str, int]] = []
        super().__enter__()
        self._server.RequestHandlerClass = type("Handler", (_Counting,), {"proxy": self})
        return self

    def parts_sent(self) -> list[int]:
        """The numbers of the parts that were sent, in order."""
        return sorted(asked.part for asked in self.asked if asked.part)

    def bytes_sent(self) -> int:
        """Bytes of payload that the program sent: of parts, and of objects below sets/."""
        whole = [a for a in self.asked if a.part or (a.kind == "put" and "/sets/" in a.path)]
        return sum(int(a.headers.get("content-length", 0)) for a in whole)

    def bytes_received(self) -> int:
        """Bytes of objects below sets/ that the program was sent."""
        return sum(count for _unused, count in self.received)

    def hurt(self, fault: Callable[[Asked], Fault]) -> None:
        """Let `fault` decide from now on, and forget what went through."""
        self.fault = fault
        self.asked.clear()
        self.received.clear()

    def heal(self) -> None:
        """Let everything through from now on, and forget what went through."""
        self.hurt(lambda asked: None)


@dataclass
class Host:
    """A host whose configuration names a local place and a bucket behind a proxy."""

    program: Program
    kit: Kit
    proxy: CountingProxy
    sections: dict[str, Any] = field(default_factory=dict)

    @property
    def site(self) -> Site:
        return self.program.site

    # --- what it does ---

    def make_set(self, days: float = 0, sizes: dict[str, int] | None = None, *, mark: str = "") -> str:
        """Publish a set of random files here; return its id."""
        set_id = (datetime.now(UTC) - timedelta(days=days)).strftime("%Y%m%dT%H%M%SZ-logical")
        # rclone's server never takes a part twice, so that an answer which is lost on a busy machine ends the run there.
        large = 6 * MIB if self.kit.kind == "moto" else 3 * MIB
        make_set(self.site.engine(), set_id, sizes or {"a": 1000, "b/large": large}, mark=mark)
        return set_id

    def succeeds(self, *arguments: str, verb: str = "") -> dict[str, Any]:
        """Run it; it must do its work, record it and leave nothing half-done, here or there. Return the result."""
        result = self.program.json(*arguments)
        record = self.record()
        assert (record["verb"], record["outcome"], record["exit_code"]) == (verb or arguments[0], "ok", 0)
        self.is_tidy()
        assert self.unfinished_uploads() == []
        return result

    def fails(self, *arguments: str, code: int, said: str, verb: str = "", hint: bool = True) -> str:
        """Run it; it must end with `code`, say `said` (a pattern) and what to do, record the same, and leave nothing half-done.

        Return what it said.
        """
        count = len(self.site.records())
        text = self.program(*arguments, code=code).stderr
        message = next(line for line in text.splitlines() if line.startswith("pgops: "))
        assert re.search(said, " ".join(text.split())), text
        assert "\n  → " in text or not hint, text
        assert len(self.site.records()) == count + 1
        record = self.record()
        assert (record["verb"], record["exit_code"]) == (verb or arguments[0], code)
        assert message.removeprefix("pgops: ") in record["reason"]
        self.is_tidy(pulled=True)
        return text

    def record(self) -> dict[str, Any]:
        return self.site.records()[-1]

    # --- what lies there ---

    def stored(self, set_id: str, name: str) -> str:
        """The path of a file of a set, below the home of the instance."""
        return "sets/%s/%s" % (set_id, name)

    def published(self) -> list[str]:
        """The sets in the bucket: what has a manifest."""
        return sorted(p.split("/")[1] for p in self.kit.raw_paths() if re.fullmatch("sets/[^/]+/manifest.json", p))

    def unfinished_uploads(self) -> list[str]:
        """The paths of unfinished multipart uploads of this instance, as the server itself lists them."""
        try:
            listed = self.kit.raw().list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])
        except Exception as error:
            if "NoSuchUpload" not in str(error):  # rclone's way to say that there is none
                raise
            return []
        home = self.kit.raw_key("")
        return [upload["Key"].removeprefix(home) for upload in listed if upload["Key"].startswith(home)]

    def is_tidy(self, *, pulled: bool = False) -> None:
        """No half-written set anywhere, no temporary folder, nothing that a probe or a repair left, and no secret told.

        With `pulled` there may be the whole files of a set whose pull broke, for the next pull.
        What was harmed on purpose is not looked at: only whether each published set has its files.
        """
        assert [path for path in unfinished(self.site) if not (pulled and "/.unfinished-pull-" in path)] == []
        assert list(self.site.root.rglob("*.repair")) == []
        assert [p for p in self.kit.raw_paths() if p.startswith("probe/")] == []
        secret = self.kit.server.secret_key
        assert all(secret not in json.dumps(record) for record in self.site.records())

    def is_whole_there(self, set_id: str) -> None:
        """Hold the set in the bucket against its manifest, by another tool."""
        self._hold(json.loads(self.kit.raw_read(self.stored(set_id, "manifest.json"))), self.kit.raw_read)

    def is_whole_here(self, set_id: str) -> None:
        """Hold the local set against its manifest."""

        def read(path: str) -> bytes:
            return (self.site.home / path).read_bytes()

        self._hold(json.loads(read(self.stored(set_id, "manifest.json"))), read)

    def _hold(self, manifest: dict[str, Any], read: Callable[[str], bytes]) -> None:
        for entry in manifest["files"]:
            content = read(self.stored(manifest["id"], entry["path"]))
            assert (len(content), hashlib.sha256(content).hexdigest()) == (entry["size"], entry["sha256"]), entry

    def lose_local(self) -> None:
        """Lose the local place."""
        subprocess.run(["rm", "-rf", str(self.site.home)], check=True)

    def alter_there(self, path: str, at: int | None = None) -> None:
        """Change one byte of a stored object. Its size and its metadata, our hash among them, stay."""
        raw, key = self.kit.raw(), self.kit.raw_key(path)
        held = raw.get_object(Bucket=BUCKET, Key=key)
        content = bytearray(held["Body"].read())
        content[len(content) // 2 if at is None else at] ^= 1
        raw.put_object(Bucket=BUCKET, Key=key, Body=bytes(content), Metadata=held["Metadata"])

    def manifest_of(self, set_id: str) -> Manifest:
        return self.site.manifest(set_id)


def host_of(folder: Path, kit: Kit, proxy: CountingProxy, server: Any = NOWHERE, **options: Any) -> Host:
    """Return a host whose instance has the kit's name. Its program does not wait long between two tries."""
    site = Site(folder / "host", server, instance=kit.instance, options=options)
    site.use_s3(kit.server, proxy.url)
    site.options["s3"].update(part_size="5MiB", retry_for="20s")
    program = Program(folder / "program", site)
    (folder / "program" / "sitecustomize.py").write_text(HURRY)
    return Host(program, kit, proxy)


@contextlib.contextmanager
def proxied(kit: Kit, folder: Path, server: Any = NOWHERE, **options: Any) -> Iterator[Host]:
    """Yield a host whose bucket lies behind a proxy that does no harm yet."""
    with CountingProxy(kit.server.endpoint_url) as proxy:
        yield host_of(folder, kit, proxy, server, **options)


@pytest.fixture(name="host", params=["moto", "rclone"])
def host_at_each(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Host]:
    """A host without PostgreSQL, on each of the S3 servers."""
    server: MotoS3 | RcloneS3 = request.getfixturevalue(request.param)
    with proxied(Kit(server, request.param, tmp_path), tmp_path) as found:
        yield found


@pytest.fixture(name="moto_host")
def host_at_moto(moto: MotoS3, tmp_path: Path) -> Iterator[Host]:
    with proxied(Kit(moto, "moto", tmp_path), tmp_path) as found:
        yield found


@pytest.fixture(name="rclone_host")
def host_at_rclone(rclone: RcloneS3, tmp_path: Path) -> Iterator[Host]:
    with proxied(Kit(rclone, "rclone", tmp_path), tmp_path) as found:
        yield found
