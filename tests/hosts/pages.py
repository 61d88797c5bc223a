# SPDX-License-Identifier: GPL-3.0-or-later
"""The commands of the pages in docs/, to be run as they stand: only names and moments are other ones."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping

from tests.tools.collection_tree import ROOT


def blocks(page: str, heading: str = "") -> list[str]:
    """Return the text of each block of commands of a page in docs/, in their order; of one section where its heading is given."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    if heading:
        (text,) = re.findall(rf"^#+ {re.escape(heading)}$(.*?)(?=^#|\Z)", text, re.MULTILINE | re.DOTALL)
    found: list[str] = re.findall(r"^```(?:sh)?\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return found


def filled(text: str, names: Mapping[str, str]) -> str:
    """Return the text with other names in place of those on the page. AssertionError where one of them does not stand there."""
    for shown, real in names.items():
        assert shown in text, (shown, text)
        text = text.replace(shown, real)
    return text


def play_of(command: str) -> tuple[str, list[str]]:
    """Return the name of the playbook and the options of a command of a page, without the inventory."""
    program, play, flag, _inventory, *options = shlex.split(command.replace("\\\n", " "))
    assert (program, flag) == ("ansible-playbook", "-i"), command
    return play.removeprefix("pgops.backup."), options
