# SPDX-License-Identifier: GPL-3.0-or-later
"""The wrappers around payload files: the right program with the right arguments, and the way back."""

from __future__ import annotations

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import UnreachableError, UsageError
from ansible_collections.pgops.backup.plugins.module_utils._engine.system import codec
from ansible_collections.pgops.backup.plugins.module_utils._engine.system.runner import Runner


class Everything(Runner):
    """A runner that finds every program but those in `lacks`."""

    def __init__(self, *lacks: str) -> None:
        super().__init__()
        self._lacks = lacks

    def find(self, name: str) -> str | None:
        return None if name in self._lacks else "/bin/" + name


def test_layers_are_put_on_from_the_inside_and_taken_off_from_the_outside() -> None:
    on = codec.wrap(Everything(), ("zstd", "age"), level=3, recipients=("age1a", "ssh-ed25519 AAA"))
    assert [c.argv for c in on] == [
        ("/bin/zstd", "-q", "-T0", "-3", "-c"),
        ("/bin/age", "--encrypt", "--recipient", "age1a", "--recipient", "ssh-ed25519 AAA"),
    ]
    off = codec.unwrap(Everything(), ("zstd", "age"), identity_file="/key")
    assert [c.name for c in off] == ["age", "zstd"]
    assert off[0].argv == ("/bin/age", "--decrypt", "--identity", "/key")


@pytest.mark.parametrize(
    ("layer", "level", "flag"),
    [
        ("zstd", None, "-3"),
        ("gzip", None, "-6"),
        ("gzip", 0, "-1"),
        ("gzip", 19, "-9"),
        ("lz4", 19, "-12"),
        ("lz4", 0, "-1"),
        ("zstd", 19, "-19"),
    ],
)
def test_levels_stay_within_what_the_program_knows(layer: str, level: int | None, flag: str) -> None:
    (command,) = codec.wrap(Everything(), (layer,), level=level, recipients=())
    assert flag in command.argv


def test_a_missing_program_is_named_with_its_package() -> None:
    with pytest.raises(UnreachableError, match="The program lz4 is not installed") as caught:
        codec.wrap(Everything("lz4"), ("lz4",), level=None, recipients=())
    assert "package lz4" in caught.value.hint


def test_without_a_key_nothing_is_opened() -> None:
    with pytest.raises(UsageError, match="no private key"):
        codec.unwrap(Everything(), ("gzip", "age"), identity_file="")


def test_the_suffix_tells_the_layers() -> None:
    assert codec.suffix(("zstd", "age")) == ".zst.age"
    assert codec.suffix(()) == ""


@pytest.mark.parametrize("layer", ["gzip", "zstd", "lz4"])
def test_what_goes_in_comes_out(layer: str) -> None:
    runner = Runner()
    if runner.find(layer) is None:
        with pytest.raises(UnreachableError):
            codec.wrap(runner, (layer,), level=None, recipients=())
        return
    content, packed, unpacked = b"some text " * 5000, [], []
    runner.pipe(codec.wrap(runner, (layer,), level=None, recipients=()), source=[content], sink=packed.append)
    runner.pipe(codec.unwrap(runner, (layer,), identity_file=""), source=packed, sink=unpacked.append)
    assert b"".join(unpacked) == content and len(b"".join(packed)) < len(content)
