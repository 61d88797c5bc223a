# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The secrets among the keys of the configuration: find them in what was given, and mask them in what is shown."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from .config import secrets_of
from .core.redaction import MASK, Redactor
from .reference import describe
from .settings import Config


def _secret_keys() -> Iterator[tuple[str, ...]]:
    for path, facts in describe():
        if facts.get("secret"):
            yield tuple(path.split("."))


def _at(data: Any, keys: tuple[str, ...]) -> Any:
    for key in keys:
        data = data.get(key) if isinstance(data, Mapping) else None
    return data


def holds_secret(data: Mapping[str, Any]) -> bool:
    """Tell whether `data`, shaped like the configuration, gives a secret. A URI without a password is none."""
    for keys in _secret_keys():
        value = _at(data, keys)
        if value and (keys[-1] != "database_url" or Redactor().text(str(value)) != str(value)):
            return True
    return False


def masked(config: Config) -> dict[str, Any]:
    """Return `config` as data with every secret masked."""
    data: dict[str, Any] = dataclasses.asdict(config)
    for keys in _secret_keys():
        section = _at(data, keys[:-1])
        if isinstance(section, dict) and section.get(keys[-1]):
            section[keys[-1]] = MASK
    shown: dict[str, Any] = Redactor(secrets_of(config)).data(data)
    return shown


__all__ = ("holds_secret", "masked")
