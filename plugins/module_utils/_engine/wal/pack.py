# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Compression in this process: zstd by the system's library, gzip by Python's. What a file is wrapped in, its first bytes say."""

from __future__ import annotations

import zlib

from ..core.errors import DamagedError, UnreachableError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

_ZSTD_MAGIC, _GZIP_MAGIC, AGE_MAGIC = b"\x28\xb5\x2f\xfd", b"\x1f\x8b", b"age-encryption.org/"
# ZSTD_c_compressionLevel, ZSTD_c_checksumFlag, ZSTD_c_nbWorkers
_LEVEL, _CHECKSUM, _WORKERS = 100, 201, 400
_THREADS = 2
_LEVELS = {"zstd": 1, "gzip": 1}
_GZIP_WINDOW = 31
# No WAL file is larger, and a damaged header must not make us ask for terabytes.
_MOST = (1 << 30) + (1 << 20)
_PIECE = 1 << 20

_library: list[Any] = []


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
                ("ZSTD_compress2", size, (pointer, pointer, size, ctypes.c_char_p, size)),
                ("ZSTD_getFrameContentSize", ctypes.c_ulonglong, (ctypes.c_char_p, size)),
                ("ZSTD_decompress", size, (pointer, size, ctypes.c_char_p, size)),
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


def pack(content: bytes, method: str, level: int | None) -> tuple[bytes, str]:
    """Return `content` compressed by `method` (auto, zstd, gzip, none) and the suffix that says so.

    Raise UnreachableError when zstd is asked for and its library is missing.
    """
    if method == "none":
        return content, ""
    if method in ("auto", "zstd"):
        library = zstd_library()
        if library is not None:
            return _zstd(library, content, _LEVELS["zstd"] if level is None else level), ".zst"
        if method == "zstd":
            raise UnreachableError(
                "The library libzstd, which wal.compression asks for, is not installed.",
                hint="Install libzstd1 (Debian) or libzstd (EL), or set wal.compression to gzip.",
            )
    packer = zlib.compressobj(min(_LEVELS["gzip"] if level is None else level, 9), zlib.DEFLATED, _GZIP_WINDOW)
    return packer.compress(content) + packer.flush(), ".gz"


def _zstd(library: Any, content: bytes, level: int) -> bytes:
    import ctypes

    context = library.ZSTD_createCCtx()
    if not context:
        raise MemoryError("zstd")
    try:
        for parameter, value in ((_LEVEL, level), (_CHECKSUM, 1)):
            _checked(library, library.ZSTD_CCtx_setParameter(context, parameter, value))
        # A library that was built without threads says so, and works alone.
        library.ZSTD_CCtx_setParameter(context, _WORKERS, _THREADS)
        # A bytearray comes from the kernel page by page, as it is used; a ctypes buffer would be wiped first.
        room = bytearray(library.ZSTD_compressBound(len(content)))
        target = (ctypes.c_char * len(room)).from_buffer(room)
        size = library.ZSTD_compress2(context, target, len(room), content, len(content))
        return bytes(memoryview(room)[: _checked(library, size)])
    finally:
        library.ZSTD_freeCCtx(context)


def _checked(library: Any, answer: int) -> int:
    if library.ZSTD_isError(answer):
        raise DamagedError("zstd could not do its work (code %d)." % (answer - (1 << 64)))
    return answer


def content_size(head: bytes, stored_size: int) -> int | None:
    """Return how much a stored file of `stored_size` bytes that begins with `head` holds; None if that does not tell."""
    if head.startswith((_GZIP_MAGIC, AGE_MAGIC)):
        return None
    if not head.startswith(_ZSTD_MAGIC):
        return stored_size
    library = zstd_library()
    size = int(library.ZSTD_getFrameContentSize(head, len(head))) if library is not None else _MOST + 1
    return size if size <= _MOST else None


def unpack(blob: bytes) -> bytes | bytearray:
    """Return what `blob` holds, by its first bytes. Raise DamagedError if it is cut or altered, UnreachableError without libzstd."""
    if blob.startswith(_ZSTD_MAGIC):
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


def holds(blob: bytes, content: bytes) -> bool:
    """Tell whether `blob` holds `content` and nothing else. Raise DamagedError if it is no whole file, UnreachableError without libzstd."""
    wanted, at = memoryview(content), 0
    for piece in pieces(blob):
        # On the left is a bytearray or bytes, which compares at the speed of memory.
        if piece != wanted[at : at + len(piece)]:  # type: ignore[comparison-overlap]
            return False
        at += len(piece)
    return at == len(content)


def pieces(blob: bytes) -> Iterator[bytes | bytearray]:
    """Yield what `blob` holds, piece by piece: memory for the whole costs as much as the work itself.

    A piece is good until the next but one is asked for. Raise DamagedError where it is cut or altered, UnreachableError without libzstd.
    """
    if not blob.startswith(_ZSTD_MAGIC):
        yield unpack(blob)
        return
    import ctypes

    library = _needed_library()
    rooms = [bytearray(_PIECE), bytearray(_PIECE)]
    targets = [(ctypes.c_char * _PIECE).from_buffer(room) for room in rooms]
    words = ctypes.c_size_t * 3  # ZSTD_inBuffer, ZSTD_outBuffer: where it lies, its size, how far it is used
    given = words(ctypes.cast(ctypes.c_char_p(blob), ctypes.c_void_p).value or 0, len(blob), 0)
    stream = library.ZSTD_createDStream()
    if not stream:
        raise MemoryError("zstd")
    count, left = 0, 1
    try:
        while left:
            taken = words(ctypes.addressof(targets[count % 2]), _PIECE, 0)
            left = library.ZSTD_decompressStream(stream, taken, given)
            cut = left and given[2] == len(blob) and taken[2] < _PIECE
            if library.ZSTD_isError(left) or cut or count * _PIECE > _MOST or (not left and given[2] < len(blob)):
                raise DamagedError("It is no whole zstd file.")
            yield rooms[count % 2] if taken[2] == _PIECE else rooms[count % 2][: taken[2]]
            count += 1
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
    import ctypes

    library = _needed_library()
    size = library.ZSTD_getFrameContentSize(blob, len(blob))
    if size > _MOST:  # also the two values that mean unknown and damaged
        raise DamagedError("It is no whole zstd file.")
    content = bytearray(size)
    target = (ctypes.c_char * size).from_buffer(content)
    found = library.ZSTD_decompress(target, size, blob, len(blob))
    if library.ZSTD_isError(found) or found != size:
        raise DamagedError("It is no whole zstd file.")
    return content


__all__ = ("AGE_MAGIC", "content_size", "holds", "pack", "pieces", "unpack", "zstd_library")
