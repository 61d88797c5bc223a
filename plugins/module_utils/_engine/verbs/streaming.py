# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""A set that is made in S3: its base backup goes there while it is taken, its small files at the end, its manifest last."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Optional, Union

from ..context import Context
from ..core.errors import MissingError, PgopsError, RefusedError
from ..core.manifest import File
from ..core.sizes import human_size, parse_size
from ..places.s3 import S3Place
from ..postgres.base_taking import FOLDER
from ..postgres.dumping import Sink
from ..postgres.throwaway import claimed
from ..system.bridge import flow
from ..system.durable import free_bytes
from ..system.runner import Command, OnLine

_STALE = timedelta(days=7)


class StreamSink(Sink):
    """The set `set_id` of `place`: what belongs to the base backup is sent as it comes, the rest waits in `folder`.

    `expected` is about how large it gets; `room` is a directory for the parts on their way.
    """

    def __init__(self, context: Context, folder: Path, place: S3Place, set_id: str, expected: int, room: Path) -> None:
        super().__init__(context, folder, parse_size(context.config.backup.min_free))
        self._place, self._set_id, self._expected, self._room = place, set_id, expected, room
        self.sent: list[File] = []

    def begin_anew(self, path: str) -> None:
        """Do as Sink.begin_anew() does; what was sent of an upload that failed is given up, and its parts here go."""
        super().begin_anew(path)
        for part in self._room.iterdir():
            part.unlink()

    def stream(
        self,
        path: str,
        commands: list[Command],
        *,
        source: Union[bytes, Iterable[bytes], None] = None,
        watch: Optional[Any] = None,
        on_line: Optional[OnLine] = None,
    ) -> None:
        """Do as Sink.stream() does; what belongs to the base backup goes to S3."""
        if not path.startswith(FOLDER + "/"):
            super().stream(path, commands, source=source, watch=watch, on_line=on_line)
            return
        chunks: Optional[Iterable[bytes]] = [source] if isinstance(source, bytes) else source
        with contextlib.ExitStack() as stack:
            if commands:
                runner = self._context.runner
                chunks = stack.enter_context(flow(runner, commands, source=chunks, watch=watch, on_line=on_line))
            self.sent.append(
                self._place.upload_stream(
                    self._set_id,
                    path,
                    chunks or (),
                    expected=self._expected,
                    room=self._room,
                    progress=self._context.reporter.advance,
                )
            )


@contextlib.contextmanager
def set_in_s3(context: Context, place: S3Place, set_id: str, expected: int) -> Iterator[StreamSink]:
    """Yield what takes the payloads of a set; when the block does not end well, what was sent of it is removed.

    The block publishes the set by its manifest. What killed runs began long ago is given up, as a sync does.
    """
    stale = place.abort_stale_uploads(context.clock() - _STALE)
    if stale:
        context.warn(
            "%d unfinished uploads older than %d days were given up in %s." % (len(stale), _STALE.days, place.root)
        )
    with context.scratch("backup") as scratch, claimed(context, scratch):
        folder, room = scratch / "set", scratch / "parts"
        for path in (folder, room):
            path.mkdir(mode=0o700)
        try:
            yield StreamSink(context, folder, place, set_id, expected, room)
        except BaseException:
            try:
                place.delete_set(set_id)
            except MissingError:
                pass  # nothing was sent whole
            except PgopsError as error:
                context.warn(
                    "What was sent of %s may still lie in %s, where it is no set: %s" % (set_id, place.root, error)
                )
            raise


def check_stream_room(context: Context, place: S3Place, expected: int) -> int:
    """Return the bytes that are free for parts on their way. Raise RefusedError if there are too few."""
    folder = Path(context.config.work_dir or context.state)
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    free, needed, floor = free_bytes(folder), place.stream_room(expected), parse_size(context.config.backup.min_free)
    if free - needed < floor:
        raise RefusedError(
            "%s has %s free; the parts on their way to S3 need %s, and %s must stay free."
            % (folder, human_size(free), human_size(needed), human_size(floor)),
            hint="Make room, set work_dir to a larger disk, or lower s3.concurrency or s3.part_size.",
        )
    return free


__all__ = ("StreamSink", "check_stream_room", "set_in_s3")
