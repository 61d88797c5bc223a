# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Compression in this process: zstd by the system's library, gzip by Python's. What a file is wrapped in, its first bytes say."""

from __future__ import annotations

import zlib

from ..core.errors import DamagedError, UnreachableError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

_ZSTD_MAGIC, _GZIP_MAGIC, AGE_MAGIC = b"\x28\xb5\x2f\xfd", b"\x1f\x8b", b"age-encryption.org/"
# ZSTD_c_compressionLevel, ZSTD_c_minMatch, ZSTD_c_checksumFlag
_LEVEL, _SHORTEST, _CHECKSUM = 100, 105, 201
# At level 1: two hundredths smaller, which is more than the frames cost, for a twentieth of the time.
_SHORTEST_AT_1 = 6
# What is longer becomes several frames, which are packed and proven side by side. zstd's own threads take a fifth more CPU.
_FRAME = 4 << 20
# Before several frames lies one that each zstd skips (its number and length first): how much they hold together.
_SKIPPED = b"\x50\x2a\x4d\x18\x08\x00\x00\x00"
_HEAD = len(_SKIPPED) + 8
_LEVELS = {"zstd": 1, "gzip": 1}
_GZIP_WINDOW = 31
# No WAL file is larger, and a damaged header must not make us ask for terabytes.
_MOST = (1 << 30) + (1 << 20)
PIECE = 1 << 20

# The bytes of a part of packed content, and which of the content it holds: content[at : at + size].
Part = tuple[memoryview, int, int]
_library: list[Any] = []
# Memory that was used, by its size: fresh memory comes from the kernel page by page, which takes as long as reading a segment.
_kept: dict[int, list[bytearray]] = {}
_KEPT_OF_EACH, _LEAST_KEPT, LARGEST_KEPT = 5, 64 << 10, 16 << 20


def zstd_library() -> Any:
    """Return the system's libzstd, ready for calls; None where there is none."""
    if not _library:
        _library.append(_load())
    return _library[0]


def _load() -> Any:
    try:
        import ctypes
    except ImportError:
        return None
    for name in ("libzstd.so.1", "libzstd.so"):
        try:
            library = ctypes.CDLL(name)
            size, pointer, number = ctypes.c_size_t, ctypes.c_void_p, ctypes.c_int
            for function, result, arguments in (
                ("ZSTD_isError", ctypes.c_uint, (size,)),
                ("ZSTD_compressBound", size, (size,)),
                ("ZSTD_createCCtx", pointer, ()),
                ("ZSTD_freeCCtx", size, (pointer,)),
                ("ZSTD_CCtx_setParameter", size, (pointer, number, number)),
                ("ZSTD_compress2", size, (pointer, pointer, size, pointer, size)),
                ("ZSTD_getFrameContentSize", ctypes.c_ulonglong, (ctypes.c_char_p, size)),
                ("ZSTD_decompress", size, (pointer, size, pointer, size)),
                ("ZSTD_createDStream", pointer, ()),
                ("ZSTD_freeDStream", size, (pointer,)),
                ("ZSTD_decompressStream", size, (pointer, pointer, pointer)),
            ):
                found = getattr(library, function)
                found.restype, found.argtypes = result, list(arguments)
        except (OSError, AttributeError):  # not there, or older than 1.4
            continue
        return library
    return None


def borrowed(size: int) -> bytearray:
    """Return memory of that size with anything in it; give it back by returned(), or keep it."""
    try:
        return _kept[size].pop()
    except LookupError:
        return bytearray(size)


def returned(room: bytearray) -> None:
    """Keep what was borrowed for the next who needs as much; nobody may use it any more."""
    if _LEAST_KEPT <= len(room) <= LARGEST_KEPT:
        others = _kept.setdefault(len(room), [])
        if len(others) < _KEPT_OF_EACH:
            others.append(room)


def pack(content: bytes | bytearray, method: str, level: int | None) -> tuple[bytes, str]:
    """Return `content` compressed by `method` (auto, zstd, gzip, none) and the suffix that says so.

    Raise UnreachableError when zstd is asked for and its library is missing.
    """
    works, suffix = parts(content, method, level, [])
    return b"".join(work()[0] for work in works), suffix


def parts(
    content: bytes | bytearray, method: str, level: int | None, rooms: list[bytearray]
) -> tuple[list[Callable[[], Part]], str]:
    """Return what makes each part of the packed content, in any order or at once, and the suffix. Raise as pack() does.

    A part is its bytes, and which of the content it holds (from where, how much). Its bytes lie in memory that was borrowed:
    it is added to `rooms`, to be given back.
    """
    whole = len(content)
    if method == "none":
        return [lambda: (memoryview(content), 0, whole)], ""
    if method in ("auto", "zstd"):
        library = zstd_library()
        if library is not None:
            chosen = _LEVELS["zstd"] if level is None else level

            def framed(at: int, size: int) -> Callable[[], Part]:
                return lambda: (_zstd(library, content, at, size, chosen, rooms), at, size)

            works = [framed(at, min(_FRAME, whole - at)) for at in range(0, whole, _FRAME)] or [framed(0, 0)]
            if len(works) > 1:
                head = memoryview(_SKIPPED + whole.to_bytes(8, "little"))
                works.insert(0, lambda: (head, 0, 0))
            return works, ".zst"
        if method == "zstd":
            raise UnreachableError(
                "The library libzstd, which wal.compression asks for, is not installed.",
                hint="Install libzstd1 (Debian) or libzstd (EL), or set wal.compression to gzip.",
            )

    def zipped() -> Part:
        packer = zlib.compressobj(min(_LEVELS["gzip"] if level is None else level, 9), zlib.DEFLATED, _GZIP_WINDOW)
        return memoryview(packer.compress(content) + packer.flush()), 0, whole

    return [zipped], ".gz"


def _zstd(
    library: Any, content: bytes | bytearray, at: int, length: int, level: int, rooms: list[bytearray]
) -> memoryview:
    """Return content[at : at + length] as one frame, in memory that was borrowed."""
    import ctypes

    room = borrowed(library.ZSTD_compressBound(length))
    rooms.append(room)
    context = library.ZSTD_createCCtx()
    if not context:
        raise MemoryError("zstd")
    try:
        for parameter, value in (
            (_LEVEL, level),
            (_CHECKSUM, 1),
            *(((_SHORTEST, _SHORTEST_AT_1),) if level == 1 else ()),
        ):
            _checked(library, library.ZSTD_CCtx_setParameter(context, parameter, value))
        target = (ctypes.c_char * len(room)).from_buffer(room)
        size = library.ZSTD_compress2(context, target, len(room), _address(content) + at, length)
        return memoryview(room)[: _checked(library, size)]
    finally:
        library.ZSTD_freeCCtx(context)


def _address(content: bytes | bytearray | memoryview) -> int:
    """Return where the content lies in memory, which its owner must hold."""
    import ctypes

    if isinstance(content, bytes):
        return ctypes.cast(ctypes.c_char_p(content), ctypes.c_void_p).value or 0
    return ctypes.addressof(ctypes.c_char.from_buffer(content)) if len(content) else 0


def _checked(library: Any, answer: int) -> int:
    if library.ZSTD_isError(answer):
        raise DamagedError("zstd could not do its work (code %d)." % (answer - (1 << 64)))
    return answer


def content_size(head: bytes, stored_size: int) -> int | None:
    """Return how much a stored file of `stored_size` bytes that begins with `head` holds; None if that does not tell."""
    if head.startswith((_GZIP_MAGIC, AGE_MAGIC)):
        return None
    if head.startswith(_SKIPPED):
        size = int.from_bytes(head[len(_SKIPPED) : _HEAD], "little")
    elif head.startswith(_ZSTD_MAGIC):
        library = zstd_library()
        size = int(library.ZSTD_getFrameContentSize(head, len(head))) if library is not None else _MOST + 1
    else:
        return stored_size
    return size if size <= _MOST else None


def unpack(blob: bytes) -> bytes | bytearray:
    """Return what `blob` holds, by its first bytes. Raise DamagedError if it is cut or altered, UnreachableError without libzstd."""
    if blob.startswith((_ZSTD_MAGIC, _SKIPPED)):
        return _unzstd(blob)
    if blob.startswith(_GZIP_MAGIC):
        unpacker = zlib.decompressobj(_GZIP_WINDOW)
        try:
            content = unpacker.decompress(blob, _MOST)
        except zlib.error as error:
            raise DamagedError("It is no whole gzip file: %s." % error) from None
        if not unpacker.eof or unpacker.unused_data:
            raise DamagedError("It is no whole gzip file.")
        return content
    return blob


def holds(blob: bytes, content: bytes | bytearray) -> bool:
    """Tell whether `blob` holds `content` and nothing else. Raise DamagedError if it is no whole file, UnreachableError without libzstd."""
    wanted, at = memoryview(content), 0
    for piece in pieces(blob):
        # On the left is a bytearray or bytes, which compares at the speed of memory.
        if piece != wanted[at : at + len(piece)]:  # type: ignore[comparison-overlap]
            return False
        at += len(piece)
    return at == len(content)


def part_holds(part: Part, content: bytes | bytearray) -> bool:
    """Tell whether a part of packed content, as parts() made it, holds that of it. Raise as holds() does."""
    blob, at, size = part
    wanted = memoryview(content)[at : at + size]
    if blob.obj is content:
        return True  # it is not packed
    if blob[: len(_SKIPPED)] == _SKIPPED:
        return content_size(bytes(blob), 0) == len(content)
    if blob[: len(_ZSTD_MAGIC)] != _ZSTD_MAGIC:
        return holds(bytes(blob), content)  # gzip, all of it
    room = borrowed(size)
    try:
        _unzstd_into(room, _address(blob), len(blob))
        return room == wanted
    finally:
        returned(room)


def pieces(blob: bytes, rooms: Sequence[bytearray] = ()) -> Iterator[bytes | bytearray]:
    """Yield what `blob` holds, piece by piece: memory for the whole costs as much as the work itself.

    A piece is good until the next but one is asked for; they lie in `rooms` in turn, two of PIECE bytes, if these are given.
    Raise DamagedError where it is cut or altered, UnreachableError without libzstd.
    """
    several = blob.startswith(_SKIPPED)
    if not several and not blob.startswith(_ZSTD_MAGIC):
        yield unpack(blob)
        return
    import ctypes

    library = _needed_library()
    rooms = rooms or (bytearray(PIECE), bytearray(PIECE))
    targets = [(ctypes.c_char * PIECE).from_buffer(room) for room in rooms]
    words = ctypes.c_size_t * 3  # ZSTD_inBuffer, ZSTD_outBuffer: where it lies, its size, how far it is used
    given = words(_address(blob), len(blob), _HEAD if several else 0)
    stream = library.ZSTD_createDStream()
    if not stream:
        raise MemoryError("zstd")
    count, found, left = 0, 0, 1
    try:
        while left or (several and given[2] < len(blob)):
            taken = words(ctypes.addressof(targets[count % 2]), PIECE, 0)
            left = library.ZSTD_decompressStream(stream, taken, given)
            cut = left and given[2] == len(blob) and taken[2] < PIECE
            found += taken[2]
            if (
                library.ZSTD_isError(left)
                or cut
                or found > _MOST
                or (not several and not left and given[2] < len(blob))
            ):
                raise DamagedError("It is no whole zstd file.")
            if taken[2]:
                yield rooms[count % 2] if taken[2] == PIECE else rooms[count % 2][: taken[2]]
                count += 1
        # Cut between two of its frames it would look whole.
        if several and found != content_size(blob[:_HEAD], 0):
            raise DamagedError("It is no whole zstd file.")
    finally:
        library.ZSTD_freeDStream(stream)


def _needed_library() -> Any:
    library = zstd_library()
    if library is None:
        raise UnreachableError(
            "It is compressed by zstd, and the library libzstd is not installed.",
            hint="Install libzstd1 (Debian) or libzstd (EL).",
        )
    return library


def _unzstd(blob: bytes) -> bytearray:
    size = content_size(blob, 0) if _needed_library() is not None else None
    if size is None:  # also where it is unknown or damaged
        raise DamagedError("It is no whole zstd file.")
    content = bytearray(size)
    _unzstd_into(content, _address(blob), len(blob))
    return content


def _unzstd_into(room: bytearray, address: int, length: int) -> None:
    """Fill `room` with what the frames at the address hold. Raise DamagedError if that is not as much."""
    import ctypes

    library = _needed_library()
    target = (ctypes.c_char * len(room)).from_buffer(room)
    found = library.ZSTD_decompress(target, len(room), address, length)
    if library.ZSTD_isError(found) or found != len(room):
        raise DamagedError("It is no whole zstd file.")


__all__ = (
    "AGE_MAGIC",
    "LARGEST_KEPT",
    "PIECE",
    "Part",
    "borrowed",
    "content_size",
    "holds",
    "pack",
    "part_holds",
    "parts",
    "pieces",
    "returned",
    "unpack",
    "zstd_library",
)
