# SPDX-License-Identifier: GPL-3.0-or-later
"""A host whose clock is an hour off that of the server: it takes base backups and recovers, to the row, by the server's clock."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine.context import Context
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import RefusedError
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.wal_status import wal_status
from demo.servers import PostgresServer, wheel_bindir
from tests.integration.conftest import Site, create_database
from tests.integration.test_recover import Story, upto
from tests.integration.wal_fixtures import Host, archived_up_to

HOUR = timedelta(hours=1)


@dataclass
class WrongSite(Site):
    """A host whose clock is `off` that of the server by so much."""

    off: timedelta = timedelta(0)

    def engine(self, **sections: Any) -> Context:
        context = super().engine(**sections)
        context.clock = lambda: datetime.now(UTC) + self.off
        return context


@pytest.fixture(params=[HOUR, -HOUR], ids=["ahead", "behind"])
def wrong(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """A server that archives with the program; one base backup is from when the clocks agreed, the other from after that."""
    root, host = tmp_path_factory.mktemp("wrong"), Host()
    settings = {
        "archive_mode": "on",
        "archive_command": host.command("archive", "%p"),
        "wal_level": "replica",
        "autovacuum": "off",  # it commits, too
    }
    with PostgresServer(wheel_bindir(18), root, settings=settings) as server:
        create_database(server, "shop", "CREATE TABLE log (i int PRIMARY KEY)")
        options = {"local": {"path": str(host.root / "backups")}, "wal": {"enabled": True}}
        site = WrongSite(root / "site", server, instance="db1", options=options)
        told = Story(server, site, host.wal, config_file=str(host.root / "config.json"), program=str(host.program))
        told.write(2)
        told.back_up()
        told.write(2)
        site.off = request.param
        told.back_up()
        told.write(4)
        archived_up_to(server)
        yield told
        for folder in told.copies:
            told.stop(folder)
    host.close()


def test_a_moment_is_one_of_the_servers_clock_and_the_difference_is_told(wrong: Story) -> None:
    """One fixture of a minute for all that hangs on it."""
    behind = wrong.site.engine().clock() < datetime.now(UTC)
    for number, base in ((3, wrong.bases[0]), (6, wrong.bases[1])):
        folder = wrong.folder()
        result = wrong.recover(folder, time=wrong.moments[number].isoformat(), tablespaces={})
        try:
            assert wrong.rows(result) == upto(number)
            assert result["set"] == base
        finally:
            wrong.stop(folder)
    # Nothing is said that an hour would make wrong.
    status = wal_status(wrong.site.engine())
    (told,) = [
        one["text"] for one in status["findings"] if one["check"] == "wal clock" and "The server's" in one["text"]
    ]
    assert ("ahead of this host's" if behind else "behind this host's") in told
    (place,) = status["places"]
    if behind:
        assert place["rpo_seconds"] is None
        assert place["ahead_seconds"] == pytest.approx(HOUR.total_seconds(), abs=300)
    else:
        assert place["rpo_seconds"] == pytest.approx(HOUR.total_seconds(), abs=300)
    assert [stretch["bases"] for stretch in place["windows"][-1]["stretches"]] == [wrong.bases]
    # Without our own archive nobody knows what is there; that the clock may be it, is said.
    moment = (datetime.now(UTC) + (timedelta(0) if behind else 2 * HOUR)).isoformat()
    folder = wrong.folder()
    with pytest.raises(RefusedError, match=r"lies in the future: it is .* now, by this host's clock") as refused:
        wrong.recover(folder, time=moment, tablespaces={}, sections={"restore": {"restore_command": "cp x/%f %p"}})
    assert "timedatectl" in refused.value.hint
    assert list(folder.iterdir()) == []
