# SPDX-License-Identifier: GPL-3.0-or-later
"""What PostgreSQL calls for: which words a call has, and what they change of the configuration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine.wal import calls, stay

SEGMENT = "000000010000000000000001"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def written(tmp_path: Path) -> str:
    config = tmp_path / "config.yml"
    values = {
        "instance": "main",
        "local": {"path": str(tmp_path)},
        "restore": {"identity_file": "/of/the/configuration"},
    }
    config.write_text(json.dumps(values))
    return str(config)


@pytest.mark.parametrize(
    ("more", "key", "home"),
    [
        ((), "/of/the/configuration", "main"),
        (("--identity-file", "/run/its key"), "/run/its key", "main"),
        (("--identity-file=/run/key",), "/run/key", "main"),
        (("--instance", "other", "--identity-file", "/run/key"), "/run/key", "other"),
    ],
)
def test_the_key_of_a_call_goes_before_that_of_the_configuration(
    tmp_path: Path, more: tuple[str, ...], key: str, home: str
) -> None:
    found: list[Any] = []

    def bring(brief: Any, *_words: str, **_more: Any) -> str:
        found.append(brief)
        return "local"

    said: list[str] = []
    words = ["--config", written(tmp_path), *more, SEGMENT, "pg_wal/RECOVERYXLOG"]
    assert calls.carry_out("fetch", words, said.append, bring=bring) == 0
    assert (found[0].identity_file, found[0].home) == (key, str(tmp_path / home))
    assert found[0].instance == ("" if home == "main" else home)
    assert said == []


def test_to_archive_nothing_is_opened() -> None:
    said: list[str] = []
    assert calls.carry_out("archive", ["--identity-file", "/run/key", "pg_wal/x"], said.append) == 2
    assert "--identity-file is for fetch alone" in said[0]


def test_whoever_stays_keeps_what_one_key_opens_from_the_calls_with_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it fetches ahead for one would else be handed to the other."""
    config = written(tmp_path)
    made: list[Any] = []

    class Recovery:
        def __init__(self, brief: Any, *_more: Any) -> None:
            made.append(brief.identity_file)

        def give(self, name: str, _say: Any) -> tuple[str, str]:
            (tmp_path / name).touch()
            return "s3", str(tmp_path / name)

    monkeypatch.setattr(stay, "Recovery", Recovery)
    monkeypatch.setattr(stay, "look_into_or_remove", lambda *_unused: None)
    staying = stay.Staying(config, str(tmp_path / "sock"))
    for more in ((), ("--identity-file", "/one"), ("--identity-file", "/two"), ("--identity-file", "/one")):
        words = ["--config", config, *more, SEGMENT, "pg_wal/RECOVERYXLOG"]
        question = [stay.PROTOCOL, stay._PACKAGE.parent.name, str(tmp_path), "fetch", *words]
        assert staying._answer(question)[:2] == ("0", str(tmp_path / SEGMENT))
    assert made == ["/of/the/configuration", "/one", "/two"]
