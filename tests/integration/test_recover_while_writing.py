# SPDX-License-Identifier: GPL-3.0-or-later
"""Recovery of a server on which others commit all the while, also while its base backup is taken and archived by the program."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine.places.catalog import Catalog
from demo.servers import PostgresServer, wheel_bindir
from tests.integration.conftest import Site, create_database, cursor, run_sql, wait_for
from tests.integration.test_recover import Story
from tests.integration.wal_fixtures import Host, archived_up_to

LONG = 1_000_000
SESSIONS = 2


@dataclass
class Writers:
    """Sessions that commit all the while, rows of several statements each, and what they committed, in that order.

    Transactions overlap; only the commits themselves follow one another. Two that were at it at once could have their moments
    the one way round and their records the other, and PostgreSQL stops at the first record that is behind a moment.
    """

    server: PostgresServer
    committed: list[tuple[str, list[int]]] = field(default_factory=list)
    positions: dict[int, str] = field(default_factory=dict)
    over: threading.Event = field(default_factory=threading.Event)
    turn: threading.Lock = field(default_factory=threading.Lock)
    troubles: list[BaseException] = field(default_factory=list)

    def commit(self, asked: Any, rows: list[int]) -> None:
        """End a transaction, and keep where that was. Behind the position comes a record that is no commit."""
        asked.execute("SELECT pg_current_xact_id()::text")
        (xid,) = asked.fetchone()
        with self.turn:
            asked.execute("COMMIT")
            asked.execute("SELECT pg_current_wal_insert_lsn()::text, pg_logical_emit_message(false, 'after', 'it')")
            self.positions[len(self.committed)] = asked.fetchone()[0]
            self.committed.append((xid, rows))

    def write(self, session: int) -> None:
        """Be one of the sessions until it is over."""
        try:
            with cursor(self.server, "shop") as asked:
                number = session
                while not self.over.is_set():
                    rows = [10 * number, 10 * number + 1]
                    asked.execute("BEGIN")
                    for row in rows:
                        asked.execute("INSERT INTO log VALUES (%s)", (row,))
                        time.sleep(0.002)
                    self.commit(asked, rows)
                    number += SESSIONS
        except BaseException as error:
            self.troubles.append(error)
            raise

    def count(self) -> int:
        assert not self.troubles, self.troubles
        return len(self.committed)

    def more(self, transactions: int = 30) -> None:
        """Wait until so many more were committed."""
        wanted = self.count() + transactions
        wait_for(lambda: self.count() >= wanted, seconds=60)


@dataclass
class Busy:
    """The story, its writers, when its base backup was whole, and when each row was committed, by the server's own account."""

    told: Story
    writers: Writers
    whole: datetime
    moments: dict[int, datetime]
    named: int

    def recovered(self, **target: Any) -> set[int]:
        """The rows of a copy that was recovered to `target`."""
        folder = self.told.folder()
        try:
            return set(self.told.rows(self.told.recover(folder, tablespaces={}, **target)))
        finally:
            self.told.stop(folder)

    def first(self, transactions: int) -> set[int]:
        """The rows of that many transactions, the first ones."""
        return {row for _xid, rows in self.writers.committed[:transactions] for row in rows}


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Busy]:
    root, host = tmp_path_factory.mktemp("busy"), Host()
    settings = {
        "archive_mode": "on",
        "archive_command": host.command("archive", "%p"),
        "wal_level": "replica",
        "track_commit_timestamp": "on",
    }
    with PostgresServer(wheel_bindir(18), root, settings=settings, initdb_args=("--wal-segsize=1",)) as server:
        create_database(server, "shop", "CREATE TABLE log (i int PRIMARY KEY)")
        options = {"local": {"path": str(host.root / "backups")}, "wal": {"enabled": True}}
        site = Site(root / "site", server, instance="db1", options=options)
        told = Story(server, site, host.wal, config_file=str(host.root / "config.json"), program=str(host.program))
        writers = Writers(server)
        threads = [threading.Thread(target=writers.write, args=(n,), daemon=True) for n in range(1, SESSIONS + 1)]
        for thread in threads:
            thread.start()
        try:
            named = _story(told, writers)
        finally:
            writers.over.set()
            for thread in threads:
                thread.join(60)
        assert not writers.troubles
        archived_up_to(server)
        known = run_sql(server, "shop", "SELECT i, pg_xact_commit_timestamp(xmin) FROM log")
        base = Catalog(site.engine().local).manifest(told.bases[0]).base
        assert base is not None
        yield Busy(told, writers, datetime.fromisoformat(base.stopped), dict(known), named)
        for folder in told.copies:
            told.stop(folder)
    host.close()


def _story(told: Story, writers: Writers) -> int:
    """Back up under the writers, with a transaction open over its end; return how many had committed at the named point."""
    with cursor(told.server, "shop") as lasting:
        lasting.execute("BEGIN")
        lasting.execute("INSERT INTO log VALUES (%s)", (LONG,))
        writers.more()
        before = writers.count()
        told.back_up()
        assert writers.count() > before, "nobody wrote while the base backup was taken"
        writers.more()
        writers.commit(lasting, [LONG])
    writers.more()
    with writers.turn:
        run_sql(told.server, "shop", "SELECT pg_create_restore_point('in the middle of it')")
        named = writers.count()
    writers.more()
    return named


def test_what_was_committed_is_what_the_server_says(busy: Busy) -> None:
    rows = [row for _xid, rows in busy.writers.committed for row in rows]
    assert set(rows) == set(busy.moments)
    times = [busy.moments[row] for row in rows]
    assert times == sorted(times)
    assert busy.moments[LONG] > busy.whole, "the long transaction was open over the end of the base backup"


def test_ten_moments_at_random_have_exactly_what_was_committed_before_them(busy: Busy) -> None:
    seed = random.randrange(10**6)
    chance = random.Random(seed)
    last = max(busy.moments.values())
    for _one in range(10):
        moment = busy.whole + timedelta(
            microseconds=chance.randrange(1, (last - busy.whole) // timedelta(microseconds=1))
        )
        expected = {row for row, committed in busy.moments.items() if committed <= moment}
        assert busy.recovered(time=moment.isoformat()) == expected, (seed, moment)


@pytest.mark.parametrize(
    "target",
    [
        lambda busy, number: ({"lsn": busy.writers.positions[number - 1]}, busy.first(number)),
        lambda busy, number: ({"xid": busy.writers.committed[number - 1][0]}, busy.first(number)),
        lambda busy, _number: ({"name": "in the middle of it"}, busy.first(busy.named)),
    ],
    ids=["lsn", "xid", "name"],
)
def test_by_lsn_transaction_and_name(
    busy: Busy, target: Callable[[Busy, int], tuple[dict[str, str], set[int]]]
) -> None:
    asked, expected = target(busy, busy.named + 7)
    assert busy.recovered(**asked) == expected
    assert LONG in expected
