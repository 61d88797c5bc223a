# SPDX-License-Identifier: GPL-3.0-or-later
"""docs/quick-start.md, its second half, as a new user goes through it: every file and every command as it stands there.

Only the names of the server, the bucket and the database are those of the lab, and where its store is and its keys. The tests
are the sections of the page, and each needs the one before: all have the host, because pytest puts those with it together.
"""

from __future__ import annotations

import os
import pty
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.hosts.bare import NOTHING
from tests.hosts.shop import asked
from tests.tools.bench import VENV
from tests.tools.collection_tree import ROOT
from tests.tools.lab.lab import HOME

PAGE = (ROOT / "docs" / "quick-start.md").read_text(encoding="utf-8")
SECTIONS = dict(
    re.findall(r"^### (\d)\. [^\n]*\n(.*?)(?=^##|\Z)", PAGE.split("## With Ansible")[1], re.MULTILINE | re.DOTALL)
)
TYPED = "a password that you choose now 5gXv2Q"
# "A quarter of an hour", as the page has it, is with the typing.
LONGEST = 600


def blocks(language: str, text: str) -> list[str]:
    """Return the code blocks of a language."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [block for of, block in found if of == language]


def commands(section: str) -> list[str]:
    """Return the commands of a section of the page."""
    return [line for block in blocks("sh", SECTIONS[section]) for line in block.splitlines()]


@dataclass
class Person:
    """Somebody at a terminal, with a home and a directory of theirs, who knows the password."""

    folder: Path
    names: dict[str, str]
    environment: dict[str, str]
    seconds: dict[str, float] = field(default_factory=dict)

    def renamed(self, text: str) -> str:
        """Return a text of the page with the names of the lab."""
        for name, ours in self.names.items():
            text = text.replace(name, ours)
        return text

    def write(self, text: str) -> Path:
        """Write a file whose first line names it, as the page has them."""
        path = self.folder / text.split("\n", 1)[0].removeprefix("# ")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.renamed(text))
        return path

    def type(self, command: str, folder: Path | None = None) -> tuple[int, str]:
        """Type a command, and the password when asked; return its code and what stood on the screen."""
        began = time.monotonic()
        child, terminal = pty.fork()
        if not child:
            os.chdir(folder or self.folder)
            os.execvpe("bash", ["bash", "-c", self.renamed(command)], self.environment)  # noqa: S606 - as a terminal does
        said = b""
        while True:
            try:
                part = os.read(terminal, 65536)
            except OSError:  # the end of a terminal
                break
            if not part:
                break
            said += part
            if said.endswith(b"assword: "):
                os.write(terminal, TYPED.encode() + b"\n")
        os.close(terminal)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        self.seconds[command] = time.monotonic() - began
        screen = said.decode(errors="replace").replace("\r\n", "\n")
        print(f"$ {command}\n{screen[-6000:]}")  # noqa: T201 - pytest shows it when the test fails
        assert TYPED not in screen
        return code, screen


@pytest.fixture(scope="module")
def person(tmp_path_factory: pytest.TempPathFactory, shared: dict[str, Any], s3: Any, bucket: str) -> Person:
    """A new user, whose provider has made the bucket."""
    s3.create_bucket(Bucket=bucket)
    home = tmp_path_factory.mktemp("person")
    names = {
        "db1.example.com": "db12",
        "example-backups": bucket,
        "region: eu-central-1": f"region: us-east-1\n  endpoint_url: {shared['lab_s3_url']}",
        "EXAMPLEKEY": shared["lab_access_key"],
        "'example secret'": "'%s'" % shared["lab_secret_key"].replace("'", "''"),
        "[orders]": "[shop]",
    }
    environment = {
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "PATH": os.pathsep.join([str(VENV), "/usr/local/bin", "/usr/bin", "/bin"]),
        "TERM": "dumb",
        # What would be in this person's ~/.ssh/config.
        "ANSIBLE_SSH_ARGS": f"-F {HOME}/ssh_config",
        # Where the scenario looks for secrets.
        "ANSIBLE_LOG_PATH": f"{os.environ['MOLECULE_EPHEMERAL_DIRECTORY']}/ansible.log",
    }
    return Person(home, names, environment)


def test_the_other_pages_have_the_same_inventory_and_commands(host: Any) -> None:
    files = [text.split("\n", 1)[1] for text in blocks("yaml", SECTIONS["2"])]
    setup = (ROOT / "docs" / "setup.md").read_text(encoding="utf-8").split("## An inventory")[1]
    assert [text.split("\n", 1)[1] for text in blocks("yaml", setup)[:3]] == files
    readme = (ROOT / "README.md").read_text(encoding="utf-8").split("## Protect servers")[1].split("## ")[0]
    assert [text.split("\n", 1)[1] for text in blocks("yaml", readme)] == files[1:2]
    for text in (setup.split("## Look first")[1].split("## ")[0], readme):
        typed = [line.split("  #")[0].strip() for line in blocks("", text)[0].splitlines()]
        assert typed == commands("3")[:2]


def test_1_the_collection_is_installed(person: Person, host: Any) -> None:
    assert len(commands("1")) == 2
    for command in commands("1"):
        code, said = person.type(command, ROOT)
        assert code == 0, said
    assert (person.folder / ".ansible/collections/ansible_collections/pgops/backup/MANIFEST.json").exists()


def test_2_the_servers_are_named_and_the_secrets_are_encrypted(
    person: Person, host: Any, shared: dict[str, Any]
) -> None:
    hosts, _settings, vault = (person.write(text) for text in blocks("yaml", SECTIONS["2"]))
    assert "db12" in hosts.read_text()
    assert shared["lab_access_key"] in vault.read_text()
    (command,) = commands("2")
    code, said = person.type(command)
    assert code == 0, said
    assert vault.read_text().startswith("$ANSIBLE_VAULT;1.1;")
    assert shared["lab_access_key"] not in vault.read_text()


def test_3_a_look_touches_nothing(person: Person, host: Any) -> None:
    code, said = person.type(commands("3")[0])
    assert code == 0, said
    assert "Would install" in said
    assert [path for path in NOTHING if host.file(path).exists] == []
    assert host.run("systemctl list-unit-files --all --no-legend %s", "pgops*").stdout == ""
    assert not host.package("zstd").is_installed


def test_3_then_the_server_is_protected(person: Person, host: Any, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = person.type(commands("3")[1])
    assert code == 0, said
    assert "1 of 1 protected" in said
    assert host.file("/etc/cron.d/pgops").exists
    took = sum(person.seconds.values())
    with capsys.disabled():
        print(f"\nquick start: from nothing to a protected server in {took:.0f} s, of which")  # noqa: T201
        for command, seconds in person.seconds.items():
            print(f"  {seconds:5.1f} s  {command}")  # noqa: T201
    assert took < LONGEST


def test_3_it_can_be_asked_at_any_time(person: Person, host: Any) -> None:
    (command,) = commands("3")[2:]
    code, said = person.type(command)
    assert code == 0, said
    assert "1 of 1 protected" in said


def test_4_a_playbook_of_ones_own_says_what_it_would_do(person: Person, host: Any) -> None:
    before = host.check_output("find /backups/postgres -type f | sort")
    playbook, restore = blocks("yaml", SECTIONS["4"])
    path = person.write(playbook)
    with path.open("a") as file:
        file.writelines(f"    {line}\n" for line in person.renamed(restore).splitlines())
    (command,) = commands("4")
    # The database is lost.
    asked(host, "postgres", "ALTER DATABASE shop RENAME TO away")
    try:
        code, said = person.type(command)
    finally:
        asked(host, "postgres", "ALTER DATABASE away RENAME TO shop")
    assert code == 0, said
    assert "Bring the orders back" in said
    assert host.check_output("find /backups/postgres -type f | sort") == before
