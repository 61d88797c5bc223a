# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine.cli import completing, completion
from ansible_collections.pgops.backup.plugins.module_utils._engine.cli.options import VERBS, build

SETS = ("20261122T020000Z-logical", "20261121T020000Z-logical")
HOSTILE = 'Customer\'s "späte" Bestellungen-2'


@pytest.fixture
def pgops(tmp_path: Path) -> Path:
    """A program that answers as pgops does, and keeps what it was asked."""
    program = tmp_path / "pgops"
    names = "shop\nshop archive\n" + HOSTILE
    program.write_text(
        "#!/bin/sh\necho \"$@\" >> %s\ncase $2 in\nsets) echo %s; echo %s;;\n*) printf '%%s\\n' %s;;\nesac\n"
        % (tmp_path / "asked", *SETS, shlex.quote(names))
    )
    program.chmod(0o755)
    return program


def complete(pgops: Path, *words: str) -> list[str]:
    """Source the script in a real bash and return what it offers for the last of `words`."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("there is no bash")
    lines = [
        completion.script("bash"),
        "COMP_WORDS=(%s)" % " ".join(shlex.quote(word) for word in [str(pgops), *words]),
        "COMP_CWORD=%d" % len(words),
        "_pgops",
        'printf "%s\\n" "${COMPREPLY[@]}"',
    ]
    environ = {"PATH": os.environ["PATH"], "HOME": "/", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        [bash, "--norc", "-u", "-c", "\n".join(lines)],
        env=environ,
        capture_output=True,
        text=True,
        cwd=pgops.parent,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return [line for line in done.stdout.splitlines() if line]


def test_verbs(pgops: Path) -> None:
    assert complete(pgops, "") == [name for name, *_unused in VERBS]
    assert complete(pgops, "re") == ["restore", "recover", "rescue"]
    assert complete(pgops, "--config", "/etc/x", "st") == ["status"]
    assert complete(pgops, "--config", "=", "/etc/x", "st") == ["status"]


def test_options_of_a_verb(pgops: Path) -> None:
    assert "--dry-run" in complete(pgops, "backup", "--")
    assert complete(pgops, "restore", "--dat") == ["--database"]
    assert complete(pgops, "status", "--dat") == []
    assert complete(pgops, "list", "--det") == ["--details"]
    assert "--json" in complete(pgops, "--")


def test_choices(pgops: Path) -> None:
    assert complete(pgops, "restore", "--mode", "") == ["create", "swap", "into_empty"]
    assert complete(pgops, "restore", "--mode", "=", "s") == ["swap"]
    assert complete(pgops, "restore", "--mode", "=") == ["create", "swap", "into_empty"]
    assert complete(pgops, "verify", "--level", "r") == ["restore"]
    assert complete(pgops, "completion", "") == ["bash", "zsh"]


def test_sets_come_from_the_places(pgops: Path) -> None:
    assert complete(pgops, "restore", "2026") == list(SETS)
    assert complete(pgops, "restore", "") == ["latest_verified", "latest", *SETS]
    assert complete(pgops, "verify", SETS[0], "un") == ["unverified"]
    assert complete(pgops, "restore", "--place", "s3", "-c", "/etc/x.yml", "20261121") == [SETS[1]]
    assert (pgops.parent / "asked").read_text().splitlines()[-1] == "_complete sets --place s3 -c /etc/x.yml"


def test_database_names_are_quoted_for_the_shell(pgops: Path) -> None:
    offered = complete(pgops, "restore", "--database", "")
    assert [shlex.split(name)[0] for name in offered] == ["shop", "shop archive", HOSTILE]
    assert complete(pgops, "restore", "--database", "shop\\ a") == ["shop\\ archive"]
    assert complete(pgops, "restore", "--confirm", "Cus") == [offered[2]]


def test_files(pgops: Path) -> None:
    (pgops.parent / "my config.yml").touch()
    assert complete(pgops, "backup", "--config", "my") == ["my config.yml"]


def test_free_text_is_not_completed(pgops: Path) -> None:
    assert complete(pgops, "pin", "latest", "--reason", "") == []
    assert complete(pgops, "restore", "--schema", "") == []


def test_a_program_that_fails_offers_nothing(pgops: Path) -> None:
    pgops.write_text("#!/bin/sh\necho trouble >&2\nexit 1\n")
    assert complete(pgops, "restore", "--database", "") == []
    assert complete(pgops, "restore", "") == ["latest_verified", "latest"]


def test_the_hidden_verb_fails_silently(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", None)
    assert completing.answer(["sets", "--config", "/nowhere/config.yml"]) == 1
    assert completing.answer(["frobnicate"]) == 1
    assert completing.answer([]) == 1
    assert capfd.readouterr() == ("", "")


def test_the_zsh_script_names_every_verb_and_option() -> None:
    text = completion.script("zsh")
    assert text.startswith("#compdef pgops\n")
    for name, parser in build().verbs.items():
        assert "%s\\:" % name in text
        for action in parser.arguments():
            for flag in action.option_strings:
                assert flag + "[" in text, flag


@pytest.mark.skipif(shutil.which("zsh") is None, reason="there is no zsh")
def test_zsh_reads_its_script(tmp_path: Path) -> None:
    (tmp_path / "_pgops").write_text(completion.script("zsh"))
    done = subprocess.run(["zsh", "-f", "-n", str(tmp_path / "_pgops")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
