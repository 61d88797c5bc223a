# SPDX-License-Identifier: GPL-3.0-or-later
"""A part of a host is looked at without touching it: something to do, or what its module would warn of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import (
    RefusedError,
    UnreachableError,
    UsageError,
)
from ansible_collections.pgops.backup.plugins.module_utils._engine.host import changes
from ansible_collections.pgops.backup.plugins.module_utils._engine.host.changes import Host
from ansible_collections.pgops.backup.plugins.module_utils._engine.host.looking import answers, lacking, lacks


def test_what_would_change_is_lacking_and_stays_as_it_is(tmp_path: Path) -> None:
    path, host = tmp_path / "a", Host()

    def part(looked_at: Host) -> bool:
        looked_at.warn("a word")
        looked_at.need(changes.file(path, b"x", mode=0o644, owned=changes.ourselves()))
        return bool(looked_at.settle()["changed"])

    assert lacks(host, part)
    assert not path.exists()
    assert (host.warnings, host.changes) == ([], []), "whoever does it warns"
    path.write_bytes(b"x")
    path.chmod(0o644)
    assert not lacks(host, part)
    assert host.warnings == ["a word"], "nobody else does"


def test_what_only_check_mode_lets_pass_is_lacking() -> None:
    host = Host()

    def part(looked_at: Host) -> bool:
        changes.owner(looked_at, "nobody of that name", "none")
        return False

    assert lacks(host, part)
    assert host.warnings == []


def fails(error: Exception) -> Callable[[Host], bool]:
    def part(looked_at: Host) -> bool:
        raise error

    return part


def test_each_part_is_named_about_which_there_is_something_to_do() -> None:
    def good(looked_at: Host) -> bool:
        looked_at.warn("a word")
        return False

    host = Host()
    parts = {"a": [good, lambda _host: True], "b": [good], "c": [], "d": [fails(PermissionError(13, "no"))]}
    assert lacking(host, {**parts, "e": [fails(UnreachableError("no"))]}) == ["a", "d", "e"], "who does it tells why"
    assert host.warnings == ["a word"]


def test_what_is_wrong_with_the_request_is_told_whole_before_anybody_begins() -> None:
    one, other = UsageError("a is wrong.", hint="Mend it."), RefusedError("b is not ours.", hint="Move it.")
    with pytest.raises(RefusedError) as alone:
        lacking(Host(), {"a": [lambda _host: True], "b": [fails(other)]})
    assert alone.value is other
    with pytest.raises(UsageError) as both:
        lacking(Host(), {"a": [fails(one), fails(one)], "b": [fails(OSError(5, "no"))], "c": [fails(other)]})
    assert str(both.value) == "a is wrong.\nb is not ours. Mend it. Move it."


def test_the_program_is_asked_for_each_configuration(tmp_path: Path) -> None:
    program = tmp_path / "pgops"
    program.write_text('#!/bin/sh\nprintf \'{"words": "%s"}\' "$*"; echo why >&2; exit 4\n')
    program.chmod(0o755)
    assert answers(Host(), str(program), ["/etc/a b.yml", "/etc/c.yml"]) == [
        {"config": path, "rc": 4, "said": {"words": "--json --config %s status" % path}, "stderr": "why"}
        for path in ("/etc/a b.yml", "/etc/c.yml")
    ]


def test_what_is_no_answer_is_none(tmp_path: Path) -> None:
    program = tmp_path / "pgops"
    program.write_text("#!/bin/sh\necho Segmentation fault\n")
    program.chmod(0o755)
    assert [answer["said"] for answer in answers(Host(), str(program), ["/etc/c.yml"])] == [None]


def test_a_program_that_cannot_be_asked_answers_nothing(tmp_path: Path) -> None:
    assert answers(Host(), str(tmp_path / "none"), ["/etc/a.yml"]) == []
