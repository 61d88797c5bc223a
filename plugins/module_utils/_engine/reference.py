# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The configuration, explained: every key with its facts, and the commented example, both made from settings/."""

from __future__ import annotations

import dataclasses
import json
import textwrap
import typing
from collections.abc import Iterator
from typing import Any

from .config import NONE, join, section_of
from .settings import Config

# Sections that have defaults of their own where they stand.
_DEFAULTS_IN_PLACE = {"local.retention.keep_within": "7d", "s3.retention.keep_within": "30d"}


def describe(cls: type[Any] = Config, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (`path.of.key`, facts) for each key below `cls`, in the order of the file.

    Facts: `text`, `default`, `example`, `choices`, `secret`, `type`, and `section` (true for a heading).
    """
    hints = typing.get_type_hints(cls)
    for spec in dataclasses.fields(cls):
        where = join(path, spec.name)
        section = section_of(hints[spec.name])
        default = spec.default if spec.default is not dataclasses.MISSING else None
        if spec.default_factory is not dataclasses.MISSING:
            default = spec.default_factory()
        if section is not None:
            many = typing.get_origin(hints[spec.name]) is list
            text = spec.metadata.get("text") or (section.__doc__ or "").strip()
            yield where, {"section": True, "many": many, "text": text, "default": default}
            yield from describe(section, where + ("[]" if many else ""))
            continue
        yield (
            where,
            {
                "section": False,
                "text": spec.metadata["text"],
                "default": _DEFAULTS_IN_PLACE.get(where, default),
                "example": spec.metadata["example"],
                "choices": [c for c in spec.metadata["choices"] if c],
                "secret": spec.metadata["secret"],
                "form": spec.metadata["form"],
                "type": _type_name(hints[spec.name]),
            },
        )


def _type_name(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Union:
        return _type_name(next(a for a in arguments if a is not NONE))
    if origin is list:
        return "list of %s" % _type_name(arguments[0])
    if origin is dict:
        return "mapping"
    return {str: "text", int: "number", bool: "true or false"}[hint]


def example() -> str:
    """Return a commented configuration that lists each key with its meaning, and that load() accepts as it stands."""
    lines = ["# Configuration of pgops. Keys that are commented out show an example; the others show their default."]
    keys = list(describe())
    for path, facts in keys:
        if "[]" in path:
            continue
        pad, key = "  " * path.count("."), path.rsplit(".", 1)[-1]
        if facts["section"]:
            lines += ["", *_comment(pad, facts["text"])]
            lines.append("%s%s:%s" % (pad, key, " []" if facts["many"] else ""))
            lines += _entry(pad, [(p, f) for p, f in keys if p.startswith(path + "[].")])
        else:
            lines += _key(pad, key, path, facts)
    return "\n".join(lines) + "\n"


def _entry(pad: str, keys: list[tuple[str, dict[str, Any]]]) -> list[str]:
    """Show what one entry of a list of sections looks like."""
    shown = [(path.rsplit(".", 1)[-1], json.dumps(facts["example"] or facts["default"])) for path, facts in keys]
    return ["%s# %s %s: %s" % (pad, "-" if i == 0 else " ", key, value) for i, (key, value) in enumerate(shown)]


def _key(pad: str, key: str, path: str, facts: dict[str, Any]) -> list[str]:
    comment = facts["text"] + (" One of %s." % ", ".join(facts["choices"]) if facts["choices"] else "")
    line = "%s: %s" % (key, json.dumps(facts["default"]))
    if facts["default"] in (None, "", [], {}):
        line = "%s: %s" % (key, json.dumps("" if facts["example"] is None else facts["example"]))
        if path != "s3.bucket":  # without which the section would be wrong
            line = "# " + line
    return [*_comment(pad, comment), pad + line]


def _comment(pad: str, text: str) -> list[str]:
    return textwrap.wrap(text, 120, initial_indent=pad + "# ", subsequent_indent=pad + "# ", break_on_hyphens=False)


__all__ = ("describe", "example")
