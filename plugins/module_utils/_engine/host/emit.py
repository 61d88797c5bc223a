# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Data as YAML, without PyYAML: each text is quoted as in JSON, so that no reader takes it for anything else. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# YAML takes these for words of its own also where they are keys.
_WORDS = frozenset({"y", "n", "yes", "no", "true", "false", "on", "off", "null"})


def to_yaml(data: Mapping[str, Any]) -> str:
    """Return `data` (mappings, lists, texts, numbers, true, false and null) as YAML."""
    return "".join("%s\n" % line for line in _mapping(data, ""))


def _mapping(data: Mapping[str, Any], pad: str) -> Iterator[str]:
    for key, value in data.items():
        yield from _entry("%s%s:" % (pad, _key(str(key))), value, pad + "  ")


def _entry(head: str, value: Any, pad: str) -> Iterator[str]:
    if isinstance(value, Mapping) and value:
        yield head
        yield from _mapping(value, pad)
    elif isinstance(value, (list, tuple)) and value:
        yield head
        for item in value:
            yield from _item(item, pad)
    else:
        yield "%s %s" % (head, _scalar(value))


def _item(item: Any, pad: str) -> Iterator[str]:
    if isinstance(item, Mapping) and item:
        first, *others = _mapping(item, pad + "  ")
        yield "%s- %s" % (pad, first.lstrip())
        yield from others
    elif isinstance(item, (list, tuple)) and item:
        yield "%s-" % pad
        for inner in item:
            yield from _item(inner, pad + "  ")
    else:
        yield "%s- %s" % (pad, _scalar(item))


def _key(key: str) -> str:
    return key if _PLAIN_KEY.fullmatch(key) and key.lower() not in _WORDS else _text(key)


def _scalar(value: Any) -> str:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, (Mapping, list, tuple)):
        return "{}" if isinstance(value, Mapping) else "[]"
    return json.dumps(value)


def _text(value: str) -> str:
    """Return `value` in double quotes; what cannot be printed, or ends a line for YAML, is escaped."""
    quoted = json.dumps(value, ensure_ascii=False)
    return "".join(c if c.isprintable() else _escape(ord(c)) for c in quoted)


def _escape(number: int) -> str:
    return "\\x%02x" % number if number < 0x100 else "\\u%04x" % number if number < 0x10000 else "\\U%08x" % number


__all__ = ("to_yaml",)
