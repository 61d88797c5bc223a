# SPDX-License-Identifier: GPL-3.0-or-later
"""What an incremental base backup is built on, asked of real sets in a local place and of a server that says what a test wants."""

from __future__ import annotations

import hashlib
import json
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, Optional

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import (
    MissingError,
    UsageError,
)
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.manifest import Base, File, Payload
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.segments import parse_lsn
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.times import iso
from ansible_collections.pgops.backup.plugins.module_utils._engine.postgres.base_taking import UnfitParentError
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs import parents

DAY = timedelta(days=1)
SYSTEM = "7300000000000000001"
START = parse_lsn("0/2000028")


class Server:
    """A server of one version; its session answers what parents.py asks."""

    def __init__(self, *, major: int = 18, summarize: str = "on", system: str = SYSTEM) -> None:
        self.major, self.version, self.system_identifier = major, "%d.4" % major, system
        self.summarize = summarize
        self.summaries: Optional[list[tuple[int, int, int]]] = [(1, 0, START + 100), (1, START + 100, START + 5000)]
        self.reached: Optional[int] = START + 5000
        self.timeline: Optional[int] = 1
        self.history: Optional[str] = None

    def value(self, _sql: str) -> str:
        return self.summarize

    def allowed(self, sql: str, parameters: Any = None) -> Optional[list[Any]]:
        if "pg_available_wal_summaries" in sql:
            return self.summaries
        if "pg_control_checkpoint" in sql:
            return None if self.timeline is None else [(self.timeline,)]
        if "pg_read_file" in sql:
            assert parameters == ("pg_wal/%08X.history" % (self.timeline or 0),)
            return None if self.history is None else [(self.history,)]
        return None if self.reached is None else [(self.reached,)]


def find(world: Any, wanted: str = "auto", server: Optional[Server] = None, **settings: Any) -> tuple[Any, str, str]:
    """Return the parent, the reason, and the warnings."""
    server = server or Server()
    context = world.context()
    context.config = SimpleNamespace(**{**vars(context.config), "base": SimpleNamespace(**{**DEFAULTS, **settings})})
    found, why = parents.find_parent(context, server, server, wanted)  # type: ignore[arg-type]
    return found, why, "\n".join(context.warnings)


DEFAULTS = {"incremental": "auto", "full_every": "7d", "chain_limit": 14}


def listing(**others: Any) -> bytes:
    """A backup_manifest as PostgreSQL writes it."""
    data = {"System-Identifier": int(SYSTEM), "Files": [], "WAL-Ranges": [], **others}
    body = json.dumps(data)[:-1].encode() + b",\n"
    return body + b'"Manifest-Checksum": "%s"}\n' % hashlib.sha256(body).hexdigest().encode()


def add(world: Any, days: float = 1, *, raw: Optional[bytes] = None, **values: Any) -> str:
    """Put a base backup with a list of its own into the local place."""
    when, content = world.NOW - days * DAY, listing() if raw is None else raw
    file = File("base/backup_manifest", len(content), hashlib.sha256(content).hexdigest())
    form = Payload(file.path, "backup_manifest")
    base = Base(form, iso(when), 750, 16 * 1024 * 1024, 1024, True, "SHA256", listing=form)
    found: str = world.add(
        "local", when, **{"payload": content, "kind": "base", "base": base, "files": (file,), **values}
    )
    return found


def test_the_newest_of_the_cluster_is_built_on(world: Any) -> None:
    full = add(world, 3)
    child = add(world, 2, kind="incremental", parent=full)
    add(world, 1, system_identifier="7")
    found, why, warnings = find(world)
    assert (found.id, found.chain, found.listing) == (child, (full, child), listing())
    assert why == "incremental: upon %s" % child
    assert warnings == ""
    assert find(world, full)[0].id == full
    assert find(world, "never")[0] is None


def test_a_role_that_may_not_know_the_cluster_takes_the_newest(world: Any) -> None:
    full = add(world)
    assert find(world, server=Server(system=""))[0].id == full


def test_where_there_is_nothing_a_full_one_begins(world: Any) -> None:
    world.add("local", world.NOW)
    found, why, warnings = find(world)
    assert (found, warnings) == (None, "")
    assert "none of this cluster" in why


@pytest.mark.parametrize("settings", [{"full_every": "12h"}, {"chain_limit": 0}])
def test_a_full_one_that_is_due_is_no_warning(world: Any, settings: Any) -> None:
    full = add(world)
    found, why, warnings = find(world, **settings)
    assert (found, warnings) == (None, "")
    assert why.startswith("full: the ")
    assert find(world, full, **settings)[0].id == full  # who names one wants that one
    assert find(world, full_every="")[0].id == full


@pytest.mark.parametrize(
    ("server", "said"),
    [
        (Server(major=16), "need PostgreSQL 17 or newer, and this server is 16.4"),
        (Server(summarize="off"), "summarize_wal is off"),
    ],
)
def test_what_the_server_cannot_do_is_told(world: Any, server: Server, said: str) -> None:
    full = add(world)
    found, _why, warnings = find(world, server=server)
    assert found is None
    assert said in warnings
    with pytest.raises(UnfitParentError, match=said):
        find(world, full, server)


@pytest.mark.parametrize(
    ("summaries", "reached", "fits"),
    [
        ([], START + 9000, False),  # all of them were removed
        ([], START, True),  # the first is to be written yet
        ([(1, START + 100, START + 9000)], START + 9000, False),  # they begin too late
        ([(1, 0, START + 5), (1, START + 10, START + 90)], START + 90, False),  # it was off for a while
        ([(1, 0, START + 90)], START + 90, True),
        ([(1, 0, START + 90), (2, START + 90, START + 99)], START + 99, True),
        (None, START, True),  # the role may not ask: the server will tell
        ([], None, True),
    ],
)
def test_whether_the_server_knows_what_changed(world: Any, summaries: Any, reached: Any, fits: bool) -> None:
    full, server = add(world), Server()
    server.summaries, server.reached = summaries, reached
    if fits:
        assert find(world, full, server)[0].id == full
        return
    with pytest.raises(UnfitParentError, match="no summary of the WAL from 0/2") as caught:
        find(world, full, server)
    assert "wal_summary_keep_time" in caught.value.hint
    found, _why, warnings = find(world, server=server)
    assert found is None
    assert "A full base backup is taken" in warnings


@pytest.mark.parametrize(
    ("timeline", "history", "said"),
    [
        (2, "1\t0/2000120\tno recovery target", ""),  # where the parent ends
        (2, "1\t0/200011F\tbefore", "that one left it at 0/200011F, before .* was whole"),
        (10, "1\t0/2000120\tx\n2\t0/9000000\ty", ""),
        (3, "2\t0/9000000\tx", "that one does not come from it"),
        (2, "nonsense", "the history of that one cannot be read"),
        (2, None, "the history of that one cannot be read"),
        (None, None, ""),  # when it is taken, it shows
    ],
)
def test_a_chain_crosses_a_fork_that_lies_behind_its_parent_only(
    world: Any, timeline: Any, history: Any, said: str
) -> None:
    full, server = add(world), Server()
    server.timeline, server.history = timeline, history
    if not said:
        assert find(world, full, server)[0].id == full
        return
    with pytest.raises(UnfitParentError, match=said) as caught:
        find(world, full, server)
    assert "--incremental never" in caught.value.hint
    found, _why, warnings = find(world, server=server)
    assert found is None
    assert "A full base backup is taken, and no incremental one: %s is of timeline 1" % full in warnings


def test_a_parent_of_a_later_timeline_is_none(world: Any) -> None:
    full = add(world, timeline=2)
    with pytest.raises(
        UnfitParentError, match=r"is of timeline 2, and the server is on timeline 1: .* not come from it"
    ):
        find(world, full)


@pytest.mark.parametrize(("fork", "fits"), [("0/2000120", True), ("0/2000100", False)])
def test_the_archive_knows_the_history_where_the_role_may_not_ask(world: Any, fork: str, fits: bool) -> None:
    full, server = add(world), Server()
    server.timeline = 2
    content = b"1\t%s\tno recovery target\n" % fork.encode()
    digest = hashlib.sha256(content).hexdigest()
    world.memory.write("wal/%s/00000002.history-%s" % (SYSTEM, digest), content)
    found, _why, warnings = find(world, server=server)
    assert (found is not None and found.id == full) == fits
    assert ("was whole" in warnings) != fits


def test_nothing_is_built_on_what_may_be_damaged(world: Any) -> None:
    full = add(world, 5)
    world.prove("local", full, level="checksum", outcome="failed")
    assert "%s failed its verification" % full in find(world)[2]
    cut = add(world, 4)
    (world.context().local.home / "sets" / cut / "base" / "backup_manifest").write_bytes(b"")
    assert "%s is not whole: Files are of the wrong size" % cut in find(world)[2]
    broken = add(world, 3, raw=b"{}")
    assert "cannot be read" in find(world)[2]
    altered = add(world, 2)
    path = world.context().local.home / "sets" / altered / "base" / "backup_manifest"
    path.write_bytes(path.read_bytes().replace(b"Files", b"Fires"))
    assert "is not what the manifest says" in find(world)[2]
    lost = add(world, 1)
    (world.context().local.home / "sets" / lost / "manifest.json").write_text("{}")
    assert "%s cannot be read" % lost in find(world)[2]
    orphan = add(world, 0.5, kind="incremental", parent=lost)
    assert "%s builds on what cannot be read" % orphan in find(world)[2]
    for name in (full, cut, broken, altered, orphan):
        with pytest.raises(UnfitParentError):
            find(world, name)


def test_what_is_no_base_backup_of_this_cluster_is_refused(world: Any) -> None:
    other = add(world, 2, system_identifier="7")
    with pytest.raises(UnfitParentError, match="is of another cluster: it says 7, and this server is %s" % SYSTEM):
        find(world, other)
    odd = add(world, 1, base=None)
    with pytest.raises(UnfitParentError, match="describes no base backup"):
        find(world, odd)
    with pytest.raises(MissingError):
        find(world, "20200101T000000Z-base")


def test_one_that_is_in_s3_only_must_be_named(world: Any) -> None:
    content = listing()
    file = File("base/backup_manifest", len(content), hashlib.sha256(content).hexdigest())
    form = Payload(file.path, "backup_manifest")
    base = Base(form, iso(world.NOW), 750, 16 * 1024 * 1024, 1024, True, "SHA256", listing=form)
    there = world.add("s3", world.NOW - DAY, kind="base", base=base, files=(file,), payload=content)
    assert find(world)[0] is None
    place = parents.find_parent(world.context(), Server(), Server(), "auto", there=world.memory)  # type: ignore[arg-type]
    assert place[0] is not None  # who takes the next one there, too, builds on it
    assert place[0].id == there
    found, _why, warnings = find(world, there)
    assert found.listing == content
    assert "is in S3 only" in warnings


def test_the_list_of_an_encrypted_set_is_kept_here(world: Any) -> None:
    context, raw = world.context(), listing()
    form = Payload("base/base.tar.age", "tar", "none", ("age",))
    facts = {"base": Base(form, iso(world.NOW), 750, 16 * 1024 * 1024, 1024, True, "SHA256"), "files": None}
    plain = world.add("local", world.NOW - 2 * DAY, kind="base")
    assert "lies inside its tar" in find(world)[2]
    name = "20261122T020000Z-base"
    digest = parents.keep_list(context, name, raw)
    assert digest == hashlib.sha256(raw).hexdigest()
    path = context.state / "lists" / name
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (raw, 0o600)
    assert path.parent.stat().st_mode & 0o777 == 0o700
    del facts["files"]
    tar = File(form.path, 4, hashlib.sha256(b"data").hexdigest())
    base = Base(form, iso(world.NOW), 750, 16 * 1024 * 1024, 1024, True, "SHA256", list_sha256=digest)
    sealed = world.add("local", world.NOW - DAY, kind="base", base=base, files=(tar,), encryption="age")
    assert "%s lies inside its tar, and this host has no copy" % sealed in find(world)[2]
    assert parents.keep_list(context, sealed, raw) == digest
    assert find(world)[0].listing == raw
    assert parents.keep_list(context, plain, b"") == ""
    for day in range(70):
        parents.keep_list(context, "%s-base" % (world.NOW + day * DAY).strftime("%Y%m%dT%H%M%SZ"), raw)
    kept = sorted(p.name for p in path.parent.iterdir())
    assert len(kept) == 64
    assert kept[-1].startswith((world.NOW + 69 * DAY).strftime("%Y%m%d"))


def test_a_list_that_cannot_be_kept_ends_no_backup(world: Any) -> None:
    context = world.context()
    context.state.mkdir(parents=True)
    (context.state / "lists").write_text("no directory")
    assert parents.keep_list(context, "20261122T020000Z-base", listing()) == ""
    assert "its list cannot be kept" in context.warnings[0]


def test_a_place_that_cannot_be_read_ends_it(world: Any) -> None:
    home = world.context().local.home
    (home / "sets").mkdir(parents=True)
    (home / "evidence").symlink_to("evidence")  # it leads to itself
    with pytest.raises(UsageError, match="cannot be read"):
        find(world)


def test_what_may_be_asked_for(world: Any) -> None:
    context = world.context()
    assert parents.wanted_parent(context, "") == "never"
    for wanted in ("auto", "never", "20261122T020000Z-base", "20261122T020000Z-incremental"):
        assert parents.wanted_parent(context, wanted) == wanted
    for wanted in ("yes", "20261122T020000Z-logical", "../x"):
        with pytest.raises(UsageError, match="is no base backup to build on"):
            parents.wanted_parent(context, wanted)
