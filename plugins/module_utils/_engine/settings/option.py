# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""What describes a key of the configuration."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Optional


def option(
    default: Any,
    text: str,
    *,
    example: Any = None,
    choices: tuple[str, ...] = (),
    form: str = "",
    secret: bool = False,
    least: Optional[int] = None,
    most: Optional[int] = None,
) -> Any:
    """Return a dataclass field that carries its documentation.

    `form` names a check of config.py (`size`, `span`, `path`, `instance`, `calendar`, `timezone`, `hours`); `secret` values are
    never shown.
    """
    metadata = {
        "text": text,
        "example": example,
        "choices": choices,
        "form": form,
        "secret": secret,
        "least": least,
        "most": most,
    }
    if isinstance(default, (list, dict)):
        default_factory = functools.partial(type(default), default)
        return dataclasses.field(default_factory=default_factory, metadata=metadata)  # pylint: disable=invalid-field-call
    return dataclasses.field(default=default, metadata=metadata)  # pylint: disable=invalid-field-call


__all__ = ("option",)
