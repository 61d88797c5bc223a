# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""One small file out of a tar that goes by. Pure; of the other files only the headers are looked at.

The tars of pg_basebackup are plain ustar: names of up to 100 bytes, and large sizes in base 256.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Optional

_BLOCK = 512
_NAME, _SIZE, _TYPE = slice(0, 100), slice(124, 136), slice(156, 157)
_FILES = (b"0", b"\0")
_FOREVER = 1 << 63


class Picker:
    """Hears a tar in chunks of any size; `content` is that of the member `wanted` once it has gone by."""

    def __init__(self, wanted: str) -> None:
        self.content: Optional[bytes] = None
        self._wanted = wanted.encode()
        self._head, self._kept = bytearray(), bytearray()
        self._left, self._padding, self._keeping = 0, 0, False

    def through(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Yield `chunks` as they are, having heard each."""
        for chunk in chunks:
            self.hear(chunk)
            yield chunk

    def hear(self, chunk: bytes) -> None:
        """Hear the next bytes. From what is no tar nothing is picked."""
        at = 0
        while at < len(chunk):
            if self._left:
                step = min(self._left, len(chunk) - at)
                if self._keeping:
                    self._kept += chunk[at : at + step]
                self._left -= step
            elif self._padding:
                step = min(self._padding, len(chunk) - at)
                self._padding -= step
            else:
                step = min(_BLOCK - len(self._head), len(chunk) - at)
                self._head += chunk[at : at + step]
                if len(self._head) == _BLOCK:
                    self._begin(bytes(self._head))
                    self._head.clear()
            at += step
            if self._keeping and not self._left:
                self.content, self._keeping = bytes(self._kept), False

    def _begin(self, header: bytes) -> None:
        if not header.strip(b"\0"):  # the end has two empty blocks
            return
        field = header[_SIZE]
        try:
            size = int.from_bytes(field[1:], "big") if field[0] & 0x80 else int(field.strip(b"\0 ") or b"0", 8)
        except ValueError:
            self._left = _FOREVER
            return
        self._left, self._padding = size, -size % _BLOCK
        self._keeping = header[_NAME].rstrip(b"\0") == self._wanted and header[_TYPE] in _FILES


__all__ = ("Picker",)
