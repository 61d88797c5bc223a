# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Keep secrets out of whatever a person or a program reads: messages, results, run records."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

MASK = "********"

_PATTERNS = (
    # user:password@ in a URI; the password may hold anything but what ends the authority
    (re.compile(r"(?i)\b([a-z][a-z0-9+.-]*://[^\s:/@]*):[^\s@/]+@"), r"\1:%s@" % MASK),
    # password=… in a connection string, also quoted; PGPASSWORD=…; login_password: …; "secret_key": "…" and their like
    (
        re.compile(
            r"(?i)((?:password|secret_key|secret_access_key|session_token)[\"']?\s*[=:]\s*)"
            r"('(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|[^\s'\"&]+)"
        ),
        r"\1%s" % MASK,
    ),
    # PASSWORD '…' in SQL
    (re.compile(r"(?i)\b(password\s+)(?:E'(?:[^'\\]|''|\\.)*|'(?:[^']|'')*)(?:'|$)"), r"\1'%s'" % MASK),
    # stored verifiers
    (re.compile(r"SCRAM-SHA-256\$[0-9]+:[A-Za-z0-9+/=$:]+"), MASK),
    (re.compile(r"\bmd5[0-9a-f]{32}\b"), MASK),
    # age secret keys, signed S3 URLs
    (re.compile(r"AGE-SECRET-KEY-[A-Z0-9]+"), MASK),
    (re.compile(r"(?i)((?:X-Amz-Signature|X-Amz-Credential|X-Amz-Security-Token)=)[^&\s]+"), r"\1%s" % MASK),
)


_SECRET_NAME = re.compile(r"(?i)pass(?:word|wd|phrase)?(?![a-z])|secret|token|credential|api_?key|private_?key|jwt")


def without_secret(setting: str) -> str:
    """Return a server setting (`name=value`), its value masked when name or value say that it is a secret."""
    name, _equals, value = setting.partition("=")
    return "%s=%s" % (name, MASK) if _SECRET_NAME.search(name) else "%s=%s" % (name, Redactor().text(value))


# name=value and --name value, the value quoted or not
_OPTION = re.compile(r"""([\w.-]+=|--[\w.-]+\s+(?!-))('[^']*'|"(?:[^"\\]|\\.)*"|[^\s'";&|]+)""")
_KEY_NAME = re.compile(r"(?i)(?:^|[_-])(?:key|pass)$")


def masked_command(command: str) -> str:
    """Return a command line with the values masked whose option or variable is called as secrets are, and what looks like one."""

    def mask(found: re.Match[str]) -> str:
        name = found[1].rstrip("= \t\n")
        return "%s%s" % (found[1], MASK) if _SECRET_NAME.search(name) or _KEY_NAME.search(name) else found[0]

    return Redactor().text(_OPTION.sub(mask, command))


def is_masked(setting: str) -> bool:
    """Tell whether without_secret() masked something of the server setting `setting`."""
    return MASK in setting


# Keys whose values are words of this program, which tell nothing of a secret that is the same word, and by which plays are steered.
_OWN_WORDS = frozenset({"check", "kind", "outcome", "place", "severity", "state", "verb"})
_WORDS = re.compile(r"[A-Za-z][A-Za-z0-9_ -]*")


class Redactor:
    """Mask known secrets and everything that looks like one."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        # A very short secret would mask half of every message; longest first, so that none hides in another.
        self._secrets = sorted({s for s in secrets if s and len(s) >= 4}, key=len, reverse=True)

    def knowing(self, secrets: Iterable[str]) -> Redactor:
        """Return one that masks `secrets`, too."""
        return Redactor([*self._secrets, *secrets])

    def text(self, text: str) -> str:
        """Return `text` with secrets masked."""
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        for pattern, replacement in _PATTERNS:
            text = pattern.sub(replacement, text)
        return text

    def data(self, value: Any) -> Any:
        """Return `value` (JSON-shaped) with every string in it masked; keys stay, and words of our own."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {
                key: item if key in _OWN_WORDS and isinstance(item, str) and _WORDS.fullmatch(item) else self.data(item)
                for key, item in value.items()
            }
        if isinstance(value, (list, tuple)):
            return [self.data(item) for item in value]
        return value


__all__ = ("MASK", "Redactor", "is_masked", "masked_command", "without_secret")
