# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""A set that is about to be read: its payloads as files or as streams, every byte held against the manifest."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shlex
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Optional

from .config import check_private
from .context import Context
from .core.errors import CommandError, DamagedError, MissingError, PgopsError, UsageError
from .core.manifest import NAME as MANIFEST
from .core.manifest import File, Manifest, Payload
from .core.sizes import parse_size
from .places.base import SETS, Place
from .places.catalog import Catalog
from .places.local import LocalPlace
from .system import codec
from .system.account import own_name
from .system.bridge import Bridge
from .system.durable import free_bytes
from .system.runner import Command

# Can be closed before its end.
Chunks = Generator[bytes, None, None]


class Source:
    """One set in one place, for a restore or a verification."""

    def __init__(self, context: Context, catalog: Catalog, set_id: str, *, identity_file: str = "") -> None:
        self.context = context
        self.catalog = catalog
        self.set_id = set_id
        self.manifest: Manifest = catalog.manifest(set_id)
        self.content = catalog.content(set_id)
        self.identity_file = identity_file

    @property
    def place(self) -> Place:
        """Where the set lies."""
        return self.catalog.place

    def size(self, payload: Payload) -> int:
        """Bytes of the files of `payload`."""
        return sum(f.size for f in self.manifest.files_of(payload))

    def chunks(self, file: File) -> Iterator[bytes]:
        """Yield the stored bytes of `file`. Raise DamagedError after the last one if they are not what the manifest says."""
        digest, size = hashlib.sha256(), 0
        with self._removal_told():
            for chunk in self.place.stream(
                "%s/%s/%s" % (SETS, self.set_id, file.path), progress=self.context.reporter.advance
            ):
                digest.update(chunk)
                size += len(chunk)
                yield chunk
        if size != file.size or digest.hexdigest() != file.sha256:
            raise DamagedError(
                "%s of %s in %s is not what the manifest says." % (file.path, self.set_id, self.place.root)
            )

    def content_of(self, payload: Payload) -> bytes:
        """Return a small payload, unwrapped. Raise DamagedError, UsageError (no key) or CommandError."""
        return b"".join(self.plain(payload))

    def script(self, payload: Payload, read: Command) -> Chunks:
        """Yield what the program `read` writes when it reads what is inside the wrappers of a payload of one file.

        Raise DamagedError, UsageError (no key) or CommandError.
        """
        unwrap = codec.unwrap(self.context.runner, payload.layers, identity_file=self.identity_file)
        return self._through([*unwrap, read], self.manifest.files_of(payload)[0])

    def plain(self, payload: Payload) -> Chunks:
        """Yield what is inside the wrappers of a payload of one file.

        The end comes only when every program ended well: whoever acts at the end of its input (psql in one transaction)
        can rely on it. Raise DamagedError, UsageError (no key) or CommandError instead.
        """
        file = self.manifest.files_of(payload)[0]
        unwrap = codec.unwrap(self.context.runner, payload.layers, identity_file=self.identity_file)
        if not unwrap:
            yield from self.chunks(file)
            return
        yield from self._through(unwrap, file)

    def _through(self, commands: Sequence[Command], file: File) -> Chunks:
        bridge = Bridge(lambda put: self.context.runner.pipe(commands, source=self.chunks(file), sink=put))
        try:
            yield from bridge.chunks()
        finally:
            bridge.abandon()

    def check_key(self) -> None:
        """Raise UsageError if the private key that was given cannot be read or does not open this set. One small file is read."""
        if self.manifest.encryption == "none" or not self.identity_file:
            return
        try:
            check_private(Path(self.identity_file), "it holds a private key")
            with open(self.identity_file, "rb"):
                pass
        except OSError as error:
            name = own_name()
            raise UsageError(
                "The account %s, which does the work, cannot read the private key %s: %s."
                % (name, self.identity_file, error.strerror),
                hint="Give it a copy for as long as it takes, and name that: install -m 600 -o %s %s /run/pgops-key.txt"
                % (name, shlex.quote(self.identity_file)),
            ) from None
        file = min(self.manifest.files, key=lambda f: f.size)
        commands = codec.unwrap(self.context.runner, ("age",), identity_file=self.identity_file)
        try:
            self.context.runner.pipe(commands, source=self.chunks(file))
        except (DamagedError, MissingError):
            return  # who reads the payloads will tell
        except CommandError as error:
            if "no identity matched" in error.stderr or self.identity_file in error.stderr:
                raise UsageError(
                    "The private key in %s does not open the set %s: %s"
                    % (self.identity_file, self.set_id, error.message),
                    hint="Its public keys are %s; give the private key of one of them."
                    % ", ".join(self.manifest.recipients),
                ) from None

    def fits(self, folder: Path, needed: int) -> bool:
        """Tell whether `needed` bytes fit into `folder` above the floor."""
        return free_bytes(folder) - needed >= parse_size(self.context.config.backup.min_free)

    def at_hand(self, payload: Payload, folder: Path) -> Path:
        """Return the payload as it is stored, as a path that programs can read: in the local place itself, else fetched to `folder`.

        Every file has been held against the manifest then. Raise MissingError or DamagedError.
        """
        if isinstance(self.place, LocalPlace):
            for file in self.manifest.files_of(payload):
                self.place.check_file(self.set_id, file, progress=self.context.reporter.advance)
            return self.place.path("%s/%s/%s" % (SETS, self.set_id, payload.path))
        target = folder / payload.path
        for file in self.manifest.files_of(payload):
            path = folder / file.path
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._removal_told():
                self.place.fetch(self.set_id, file, path, progress=self.context.reporter.advance)
        return target

    @contextlib.contextmanager
    def _removal_told(self) -> Iterator[None]:
        """Say so where a file is missing because the whole set was removed since its manifest was read.

        A prune of another host knows nothing of our locks. It removes the manifest first.
        """
        try:
            yield
        except MissingError as error:
            path = "%s/%s" % (SETS, self.set_id)
            try:
                there = "%s/%s" % (path, MANIFEST) in self.place.entries(path)
            except PgopsError:
                raise error from None
            if there:
                raise
            raise MissingError(
                "The set %s was removed from %s while it was read, as by the prune of another host: locks are of one host."
                % (self.set_id, self.place.root),
                hint="Run it again with another set (pgops info). One that is still to be read can be kept: pgops pin SET --reason TEXT.",
            ) from error

    @contextlib.contextmanager
    def linked(self, path: Path) -> Iterator[Optional[Path]]:
        """Yield a folder that holds what the folder `path` of at_hand() holds, and whose files may be replaced; or None.

        Of files in the local place they are hard links; programs of PostgreSQL do not follow other ones.
        """
        if not isinstance(self.place, LocalPlace):
            yield path
            return
        with contextlib.ExitStack() as stack:
            folder: Optional[Path] = None
            with contextlib.suppress(OSError):  # read-only, full, or a file system without links
                room = stack.enter_context(self.place.workroom())
                for file in path.iterdir():
                    os.link(file, room / file.name)
                folder = room
            yield folder


__all__ = ("Source",)
