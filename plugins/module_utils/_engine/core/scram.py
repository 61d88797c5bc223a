# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""SCRAM-SHA-256 as PostgreSQL keeps it: what a server stores instead of a password, made and compared here (RFC 5802, 7677).

So the password itself never travels, and never lies in a server's log.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import stringprep
import unicodedata

ITERATIONS = 4096
SALT_BYTES = 16
_STORED = re.compile(r"SCRAM-SHA-256\$([0-9]+):([A-Za-z0-9+/=]+)\$([A-Za-z0-9+/=]+):([A-Za-z0-9+/=]+)")
_MOST_ITERATIONS = 2**31 - 1
_PROHIBITED = (
    stringprep.in_table_a1,  # not assigned
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)


def stored(password: str, *, salt: bytes, iterations: int = ITERATIONS) -> str:
    """Return what a server stores for `password`; the `salt` must be random."""
    salted = hashlib.pbkdf2_hmac("sha256", _prepared(password), salt, iterations)
    stored_key = hashlib.sha256(_hmac(salted, b"Client Key")).digest()
    server_key = _hmac(salted, b"Server Key")
    return "SCRAM-SHA-256$%d:%s$%s:%s" % (iterations, _base64(salt), _base64(stored_key), _base64(server_key))


def is_stored(password: str, kept: str) -> bool:
    """Tell whether `kept`, which a server stores, was made of `password`. What is no SCRAM-SHA-256 was not."""
    found = _STORED.fullmatch(kept)
    if found is None or not 0 < int(found[1]) <= _MOST_ITERATIONS:
        return False
    try:
        salt = base64.b64decode(found[2], validate=True)
    except ValueError:
        return False
    return hmac.compare_digest(stored(password, salt=salt, iterations=int(found[1])), kept)


def _prepared(password: str) -> bytes:
    """Return the password by SASLprep (RFC 4013), or as it is where that forbids it: PostgreSQL is as lenient."""
    raw = password.encode("utf-8", "surrogateescape")
    if password.isascii():
        return raw
    mapped = "".join(" " if stringprep.in_table_c12(c) else c for c in password if not stringprep.in_table_b1(c))
    text = unicodedata.normalize("NFKC", mapped)
    if not text or any(prohibits(c) for prohibits in _PROHIBITED for c in text) or not _one_direction(text):
        return raw
    return text.encode("utf-8")


def _one_direction(text: str) -> bool:
    """Tell whether `text`, if any of it is written from the right to the left, begins and ends so and has no other letters."""
    if not any(stringprep.in_table_d1(c) for c in text):
        return True
    ends = stringprep.in_table_d1(text[0]) and stringprep.in_table_d1(text[-1])
    return ends and not any(stringprep.in_table_d2(c) for c in text)


def _hmac(key: bytes, text: bytes) -> bytes:
    return hmac.new(key, text, hashlib.sha256).digest()


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


__all__ = ("ITERATIONS", "SALT_BYTES", "is_stored", "stored")
