# SPDX-License-Identifier: GPL-3.0-or-later
"""What a paused recovery left is settled when it can be, and a base backup is refused that would lack a tablespace."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Optional

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine.config import build
from ansible_collections.pgops.backup.plugins.module_utils._engine.context import Context
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import PgopsError, RefusedError
from ansible_collections.pgops.backup.plugins.module_utils._engine.postgres import unproven
from ansible_collections.pgops.backup.plugins.module_utils._engine.postgres.connection import Server
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.settling import (
    forget_dropped,
    lay_missing,
    settle_promoted,
    unsettled,
)
from ansible_collections.pgops.backup.plugins.module_utils._engine.wal import tablespaces


class Session:
    """A server that answers from the links in its data directory, as PostgreSQL does."""

    def __init__(self, data: Path, *, checkpoint: int = 2, may: bool = True) -> None:
        self.data, self.checkpoint, self.may, self.said = data, checkpoint, may, list[str]()
        self.dropped = ""
        self.spaces = list[str]()  # without their links, if those are gone

    def allowed(self, sql: str) -> Optional[list[tuple[Any, ...]]]:
        try:
            return self.rows(sql)
        except FileNotFoundError:
            return None

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        if "pg_control_system" in sql:
            return [(18, 202506291)]
        if "location" not in sql:
            return [(int(oid), "lost") for oid in self.spaces]
        for oid in self.spaces:
            os.readlink(self.data / "pg_tblspc" / oid)
        links = [link for link in sorted((self.data / "pg_tblspc").iterdir()) if link.name.isdecimal()]
        if sql.startswith("SELECT oid"):
            return [(1663, ""), *((int(link.name), os.readlink(link)) for link in links if link.name != self.dropped)]
        return [("space",) for link in links if os.readlink(link).startswith("t")]

    def value(self, sql: str) -> Any:
        return "000000020000000000000007" if "pg_walfile_name" in sql else self.checkpoint

    def execute(self, sql: str) -> None:
        self.said.append(sql)
        if not self.may:
            raise PgopsError("permission denied")


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data directory of a server that runs, with a tablespace behind a link, as look_into() leaves it."""
    found = tmp_path / "data"
    for folder in (found / "pg_tblspc", tmp_path / "place"):
        folder.mkdir(parents=True)
    monkeypatch.chdir(found)  # as the server's process
    (found / "postmaster.pid").write_text("%d\n" % os.getpid())
    of_the_base = {"16398": str(tmp_path / "of the base")}
    tablespaces.lay(found, "", home=found, places={}, ours={}, others="", numbers=of_the_base)
    state = tablespaces._read(str(found))
    place = str(tmp_path / "place")
    tablespaces._write(
        str(found),
        {**state, "made": {"/live": place}, "links": {"/live": "t0"}, "numbers": {**of_the_base, "16399": place}},
        "",
    )
    for link in (found / "t0", found / "pg_tblspc" / "t0"):
        link.symlink_to(place)
    (found / "pg_tblspc" / "16400").symlink_to("t0")
    unproven.mark(tmp_path / "place", found, "")
    return found


def server(data: Path | str, *, in_recovery: bool = False) -> Server:
    return Server(180000, "18.0", "7", 1, in_recovery, True, "postgres", str(data), 100, 1)


def context_of(tmp_path: Path, **postgres: Any) -> Context:
    values = {
        "instance": "db1",
        "local": {"path": str(tmp_path / "b")},
        "state_dir": str(tmp_path / "s"),
        "log_dir": "",
    }
    return Context(build({**values, "postgres": postgres}, environ={}, host="h"), "h")


def settle(context: Context, session: Session, facts: Server, *, dry_run: bool = False) -> None:
    settle_promoted(context, session, facts, dry_run=dry_run)  # type: ignore[arg-type]


@pytest.mark.parametrize("may", [True, False])
def test_the_links_lead_to_the_directories_and_all_else_goes(data: Path, tmp_path: Path, may: bool) -> None:
    """Who may not make a checkpoint can do so as well where one came behind the promotion."""
    context, session = context_of(tmp_path), Session(data, may=may)
    settle(context, session, server(data), dry_run=True)
    assert (data / "t0").is_symlink()
    assert "will be settled" in context.warnings[-1]
    (data / "pg_tblspc" / "16399").symlink_to("t0")
    session.dropped = "16399"
    settle(context, session, server(data))
    assert not (data / "pg_tblspc" / "16399").is_symlink()
    assert session.said == ["CHECKPOINT"]
    assert (data / "pg_tblspc" / "16400").readlink() == tmp_path / "place"
    assert sorted(path.name for path in data.iterdir()) == ["pg_tblspc", "postmaster.pid"]
    assert list((tmp_path / "place").iterdir()) == []
    assert "was settled" in context.warnings[-1]
    before = list(context.warnings)
    settle(context, session, server(data))
    assert context.warnings == before


def test_an_empty_tablespace_that_a_start_before_the_promotion_took_away_is_laid_again(
    data: Path, tmp_path: Path
) -> None:
    """PostgreSQL replays its removal once more, and knows no place of any tablespace then."""
    context, session = context_of(tmp_path), Session(data)
    session.spaces = ["16398"]
    asked: Any = session
    assert unsettled(context.config.postgres, asked, data_directory=str(data), in_recovery=False)
    settle(context, session, server(data), dry_run=True)
    settle(context, session, server(data, in_recovery=True))
    assert not (data / "pg_tblspc" / "16398").is_symlink()
    place = tmp_path / "of the base"
    place.touch()
    with pytest.raises(RefusedError, match="of the base: File exists") as caught:
        settle(context, session, server(data))
    assert "or drop that tablespace" in caught.value.hint
    place.unlink()
    settle(context, session, server(data))
    assert (data / "pg_tblspc" / "16398").readlink() == place
    assert [path.name for path in place.iterdir()] == ["PG_18_202506291"]
    assert any("The tablespace lost was being dropped" in text for text in context.warnings)
    assert not (data / tablespaces.FILE).exists()


def test_what_cannot_be_settled_is_refused_with_its_reason(data: Path, tmp_path: Path) -> None:
    context = context_of(tmp_path)
    with pytest.raises(RefusedError, match="has not come to its end"):
        settle(context, Session(data), server(data, in_recovery=True))
    with pytest.raises(RefusedError, match="no checkpoint since it was promoted"):
        settle(context, Session(data, checkpoint=1, may=False), server(data))
    for away in (server(""), server(tmp_path)):
        with pytest.raises(RefusedError, match="cannot look into its data directory"):
            settle(context, Session(data), away)
    with pytest.raises(RefusedError, match="cannot look into its data directory"):
        settle(context_of(tmp_path, login_host="db1.example.com"), Session(data), server(data))
    assert (data / "t0").is_symlink()
    (data / "pg_tblspc" / "16401").symlink_to("t7")
    with pytest.raises(RefusedError, match="where those lead is not known"):
        settle(context, Session(data), server(data))


def test_what_the_system_forbids_is_refused_where_a_link_is_left_and_told_otherwise(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(link: str, place: str) -> None:
        raise PermissionError(13, "Permission denied", link)

    def also_forbidden(folders: Any) -> None:
        forbidden(str(next(iter(folders), data)), "")

    monkeypatch.setattr(tablespaces, "_lead", forbidden)
    context = context_of(tmp_path)
    with pytest.raises(RefusedError, match="16400: Permission denied"):
        settle(context, Session(data), server(data))
    (data / "pg_tblspc" / "16400").unlink()
    (data / "pg_tblspc" / "16400").symlink_to(tmp_path / "place")
    monkeypatch.setattr("%s.unmark" % settle_promoted.__module__, also_forbidden)
    settle(context, Session(data), server(data))
    assert "could not be settled" in context.warnings[-1]


def test_status_tells_of_it_until_it_is_settled(data: Path, tmp_path: Path) -> None:
    def told(where: Path | str, *, in_recovery: bool = False, **postgres: Any) -> str:
        known = context_of(tmp_path, **postgres).config.postgres
        session: Any = Session(data)
        return unsettled(known, session, data_directory=str(where), in_recovery=in_recovery)

    assert "pgops backup --kind base" in told(data)
    assert "pgops backup --kind base" in told("")  # the links tell
    assert told(data, in_recovery=True) == ""
    (data / "pg_tblspc" / "16400").unlink()
    assert told("") == ""
    assert told(data, login_host="db1.example.com") == ""
    assert told(data, login_host="localhost")
    (data / "postmaster.pid").unlink()
    assert told(data) == ""


class Spaces:
    """A server with these tablespaces, of PostgreSQL 18."""

    def __init__(self, **spaces: int) -> None:
        self.spaces = sorted((oid, name) for name, oid in spaces.items())

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        if "pg_control_system" in sql:
            return [(18, 202506291)]
        return [(oid, "/" + name) for oid, name in self.spaces] if "location" in sql else list(self.spaces)


def test_a_tablespace_whose_link_is_gone_gets_an_empty_directory_again(data: Path, tmp_path: Path) -> None:
    of_the_base = tmp_path / "of the base"
    of_the_base.mkdir()
    numbers = {"16400": str(tmp_path), "16401": str(of_the_base), "16402": str(tmp_path / "of the WAL")}
    tablespaces._write(str(data), {**tablespaces._read(str(data)), "numbers": numbers}, "")
    server: Any = Spaces(there=16400, base=16401, made=16402, odd=16403)
    told = lay_missing(data, server)
    for text, place in ((told[0], of_the_base), (told[1], tmp_path / "of the WAL")):
        assert "lies in %s, empty, again" % place in text
    assert 'No backup works until it is dropped: DROP TABLESPACE "odd".' in told[2]
    for oid, place in (("16401", of_the_base), ("16402", tmp_path / "of the WAL")):
        assert (data / "pg_tblspc" / oid).readlink() == place
        assert [path.name for path in place.iterdir()] == ["PG_18_202506291"]
    assert (data / "pg_tblspc" / "16400").readlink() == Path("t0"), "it was there"
    assert not (data / "pg_tblspc" / "16403").is_symlink()
    assert len(lay_missing(data, server)) == 1


def test_a_link_that_is_no_tablespace_of_the_server_goes(data: Path, tmp_path: Path) -> None:
    """While others may make one at this moment only those that a recovery has laid."""
    links = data / "pg_tblspc"
    place = str(tmp_path / "place")
    for name, where in (("16401", place), ("16402", place), ("16403", "/there")):
        (links / name).symlink_to(where)
    server: Any = Spaces(there=16400)
    assert forget_dropped(data, server) == []  # as where the recovery pauses: it may still come to its end
    assert forget_dropped(data, server, laid=["16402"]) == [place], "another one is being made in its directory"
    assert sorted(path.name for path in links.iterdir()) == ["16400", "16401", "t0"]
    assert forget_dropped(data, server, every=True) == [place]
    assert sorted(path.name for path in links.iterdir()) == ["16400", "t0"]
