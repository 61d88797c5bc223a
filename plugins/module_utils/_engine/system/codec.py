# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The wrappers around payload files: compression and encryption, each a well-known program in a pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

from ..core.choice import LEVELS
from ..core.errors import UnreachableError, UsageError
from .runner import Command, Runner

SUFFIXES = {"zstd": ".zst", "lz4": ".lz4", "gzip": ".gz", "age": ".age"}
_PACKAGES = {"zstd": "zstd", "lz4": "lz4", "gzip": "gzip", "age": "age"}


def suffix(layers: Sequence[str]) -> str:
    """Return what the name of a file with these layers ends in: `.zst.age`."""
    return "".join(SUFFIXES[layer] for layer in layers)


def wrap(runner: Runner, layers: Sequence[str], *, level: Optional[int], recipients: Sequence[str]) -> list[Command]:
    """Return the pipeline that puts `layers` around a stream, the innermost first.

    Raise UnreachableError if a program is missing.
    """
    commands = []
    for layer in layers:
        program = _program(runner, layer)
        if layer == "age":
            keys: tuple[str, ...] = ()
            for recipient in recipients:
                keys += ("--recipient", recipient)
            commands.append(Command((program, "--encrypt", *keys)))
        else:
            chosen = LEVELS[layer] if level is None else level
            commands.append(Command((program, *_compressor(layer, chosen))))
    return commands


def _compressor(layer: str, level: int) -> tuple[str, ...]:
    if layer == "zstd":
        return ("-q", "-T0", "-%d" % level, "-c")
    if layer == "lz4":
        return ("-q", "-%d" % min(max(level, 1), 12), "-c")
    return ("-%d" % min(max(level, 1), 9), "-n", "-c")


def unwrap(runner: Runner, layers: Sequence[str], *, identity_file: str) -> list[Command]:
    """Return the pipeline that takes `layers` off a stream. Raise UsageError if a key is needed and none is given."""
    commands = []
    for layer in reversed(layers):
        program = _program(runner, layer)
        if layer == "age":
            if not identity_file:
                raise UsageError(
                    "This set is encrypted, and no private key was given.",
                    hint="Give restore.identity_file (or --identity-file) with the key for one of its recipients.",
                )
            commands.append(Command((program, "--decrypt", "--identity", identity_file)))
        elif layer == "gzip":
            commands.append(Command((program, "-d", "-c")))
        else:
            commands.append(Command((program, "-q", "-d", "-c")))
    return commands


def _program(runner: Runner, layer: str) -> str:
    path = runner.find(layer)
    if path is None:
        raise UnreachableError(
            "The program %s is not installed." % layer, hint="Install the package %s." % _PACKAGES[layer]
        )
    return path


__all__ = ("SUFFIXES", "suffix", "unwrap", "wrap")
