# SPDX-License-Identifier: GPL-3.0-or-later
"""The server ra is gone. On rc, from S3 alone, it is brought back as it was at a moment: beside rc's own server, and in its place."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.hosts.pages import blocks, filled, play_of
from tests.hosts.shop import asked, databases_of, is_the_shop

FROM_RA = {"target": "rc", "from_instance": "ra-main", "place": "s3"}
MAIN = "/var/lib/postgresql/15/main"
DROP_IN = "/etc/systemd/system/postgresql@15-main.service.d"
COPY, SOCKETS, WAL = "/srv/copy", "/tmp/pitr", "/srv/wal of the copy"
HALF = 20
MOMENTS = 10
PAUSE = timedelta(milliseconds=20)  # of the writer, behind each row
# The pages are about db1, and its cluster 17/main; their moment is always the same one.
ON_RC = {"target=db1": "target=rc", "/17/main": "/15/main"}
MOMENT = "2026-11-22T14:30:59+01:00"
IN_PLACE = "In the place of the server"


@pytest.fixture(scope="module")
def written() -> dict[int, dict[str, str]]:
    """What the writer knows of each row."""
    told = json.loads((Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "written.json").read_text())
    return {no: {"time": moment, "lsn": position, "xid": xid} for no, moment, position, xid in told}


@pytest.fixture(scope="module")
def rc(machine: Any) -> Any:
    """The host on which ra's server is brought back."""
    return machine("rc")


@pytest.fixture
def copy(rc: Any) -> Iterator[Any]:
    """The host; what a test recovered beside its server ends with it."""
    yield rc
    end(rc)


def end(host: Any) -> None:
    """Stop the server of the copy, and remove all of it."""
    host.run("sudo -u postgres /usr/lib/postgresql/15/bin/pg_ctl stop -m immediate -D %s", COPY)
    host.check_output("rm -rf %s %s %s", COPY, SOCKETS, WAL)


def rows(host: Any, where: str = SOCKETS) -> list[int]:
    """The rows of the writer on a server that is reached by the sockets in a directory."""
    words = "sudo -u postgres psql -XAt -h %s -d shop -c %s"
    return [int(line) for line in host.check_output(words, where, "SELECT no FROM ticks ORDER BY no").split()]


def recovered(host: Any, *words: str, code: int = 0) -> dict[str, Any]:
    """Recover beside the server, by the program as root calls it."""
    host.check_output("install -d -o postgres -m 700 %s", COPY)
    command = "pgops --json recover --set instance=ra-main --place s3 --data-directory %s --socket-directory %s --yes"
    said = host.run(command + " %s" * len(words), COPY, SOCKETS, *words)
    assert said.rc == code, said.stdout + said.stderr
    result: dict[str, Any] = json.loads(said.stdout)
    return result


def test_a_moment_beside_the_server_by_the_playbook(copy: Any, playbook: Any, written: Any) -> None:
    number = HALF + 1 + secrets.randbelow(len(written) - HALF - 1)
    asks = {**FROM_RA, "to_time": written[number]["time"], "data_directory": COPY, "socket_directory": SOCKETS}
    asks["waldir"] = WAL
    said = playbook("restore", **asks)
    assert said.returncode != 0
    told = " ".join((said.stdout + said.stderr).split())
    assert f"recover {COPY} on rc" in told
    assert not copy.file(COPY).exists
    said = playbook("restore", **asks, confirm=f"recover {COPY} on rc")
    assert said.returncode == 0
    assert "Proof: it replayed up to the LSN" in " ".join(said.stdout.split())
    assert rows(copy) == list(range(1, number + 1))
    assert databases_of(copy) == {"postgres"}, "rc's own server is none of its business"
    assert copy.file(COPY + "/pg_wal").linked_to == WAL
    assert (copy.file(WAL).user, copy.file(WAL).mode) == ("postgres", 0o700)


def test_ten_moments_at_random_have_exactly_what_was_committed_before_them(copy: Any, written: Any) -> None:
    """Also one that lies between two commits."""
    chance = secrets.SystemRandom()
    for number in sorted(chance.sample(range(1, len(written)), MOMENTS)):
        moment = datetime.fromisoformat(written[number]["time"]) + chance.random() * PAUSE
        recovered(copy, "--to-time", moment.isoformat())
        assert rows(copy) == list(range(1, number + 1)), moment
        end(copy)


def test_a_transaction_by_the_program(copy: Any, written: Any) -> None:
    number = 2 + secrets.randbelow(len(written) - 2)
    assert recovered(copy, "--to-xid", written[number]["xid"])["stopped"]["log"]
    assert rows(copy) == list(range(1, number + 1))


def test_a_restore_point_by_the_program(copy: Any) -> None:
    recovered(copy, "--to-name", "before the sale")
    assert rows(copy) == list(range(1, HALF + 1))


def test_one_table_as_it_was_by_the_command_of_the_page(rc: Any, playbook: Any, written: Any) -> None:
    number = 2 + secrets.randbelow(HALF)
    (command,) = [text for text in blocks("deleted-rows.md") if text.startswith("ansible-playbook ")]
    names = {"db1": "rc", "public.orders": "public.ticks", MOMENT: written[number]["time"]}
    play, options = play_of(filled(command, names))
    # Another host's, on one that has none of its roles.
    said = playbook(play, *options, from_instance="ra-main", place="s3", globals="missing")
    assert said.returncode == 0
    assert asked(rc, "shop_before", "SELECT count(*), max(no) FROM ticks") == f"{number}|{number}"
    assert asked(rc, "shop_before", "SELECT to_regclass('orders') IS NULL") == "t"
    assert rc.check_output("ls /var/lib/pgops/ra-main/work") == ""
    rc.check_output("sudo -u postgres dropdb shop_before")


def test_in_the_place_of_the_server_and_back_by_the_commands_of_the_page(rc: Any, playbook: Any, written: Any) -> None:
    number = HALF + 1 + secrets.randbelow(len(written) - HALF - 1)
    asks = {"from_instance": "ra-main", "place": "s3"}
    there, _by_hand, back = blocks("recovery.md", IN_PLACE)
    play, options = play_of(filled(there, {**ON_RC, MOMENT: written[number]["time"]}))
    said = playbook(play, *options, **asks, confirm=f"replace {MAIN} on ra")
    assert said.returncode != 0
    assert f"replace {MAIN} on rc" in " ".join((said.stdout + said.stderr).split())
    assert databases_of(rc) == {"postgres"}
    said = playbook(play, *options, **asks, service="postgresql", confirm=f"replace {MAIN} on rc")
    assert said.returncode != 0
    assert "is run by the service postgresql@15-main" in " ".join((said.stdout + said.stderr).split())
    assert databases_of(rc) == {"postgres"}
    said = playbook(play, *options, "-e", f"confirm=replace {MAIN} on rc", **asks)
    assert said.returncode == 0
    assert rc.check_output("systemctl is-active postgresql@15-main") == "active"
    assert rows(rc, "/var/run/postgresql") == list(range(1, number + 1))
    is_the_shop(rc)
    assert asked(rc, "postgres", "SHOW archive_mode") == "off"
    assert asked(rc, "postgres", "SHOW config_file") == "/etc/postgresql/15/main/postgresql.conf"
    play, options = play_of(filled(back, ON_RC))
    assert playbook(play, *options, confirm=f"roll back {MAIN} on rc").returncode == 0
    assert rc.check_output("systemctl is-active postgresql@15-main") == "active"
    assert databases_of(rc) == {"postgres"}


def test_a_recovery_in_place_that_fails_leaves_the_server_as_it_was(rc: Any, playbook: Any) -> None:
    asks = {**FROM_RA, "to_xid": "2000000", "data_directory": MAIN, "mode": "in_place"}
    said = playbook("restore", **asks, confirm=f"replace {MAIN} on rc")
    assert said.returncode != 0
    assert "The server runs again as it was." in " ".join((said.stdout + said.stderr).split())
    assert rc.check_output("systemctl is-active postgresql@15-main") == "active"
    assert databases_of(rc) == {"postgres"}


def test_a_service_that_does_not_start_what_was_recovered_is_told_and_undone(rc: Any, playbook: Any) -> None:
    rc.check_output("install -d %s", DROP_IN)
    rc.check_output(
        "printf '[Service]\\nExecStartPre=/bin/false\\n' > %s/broken.conf && systemctl daemon-reload", DROP_IN
    )
    asks = {**FROM_RA, "to": "end", "data_directory": MAIN, "mode": "in_place"}
    said = playbook("restore", **asks, confirm=f"replace {MAIN} on rc")
    assert said.returncode != 0
    told = " ".join((said.stdout + said.stderr).split())
    assert f"{MAIN} is recovered and proven, but the service postgresql@15-main does not run it" in told
    assert f"The one before is kept as {MAIN}.before-" in told
    assert "restore_rollback" in told
    assert "runs again as it was" not in told
    rc.check_output("rm -r %s && systemctl daemon-reload", DROP_IN)
    # Nothing ran when it was asked to roll back, so nothing is started then.
    undo = {"target": "rc", "data_directory": MAIN, "confirm": f"roll back {MAIN} on rc"}
    said = playbook("restore_rollback", **undo)
    assert said.returncode == 0
    assert "so none was started. To start it: systemctl start postgresql@15-main" in " ".join(said.stdout.split())
    assert rc.run("systemctl is-active postgresql@15-main").stdout.strip() != "active"
    rc.check_output("systemctl reset-failed postgresql@15-main; systemctl start postgresql@15-main")
    assert databases_of(rc) == {"postgres"}


def test_a_missing_segment_is_told_before_and_the_gap_can_be_the_end(
    copy: Any, written: Any, s3: Any, bucket: str
) -> None:
    """The last test: a segment behind the restore point is gone for good."""
    high, low = written[HALF + 2]["lsn"].split("/")
    gone = "00000001%08X%08X" % (int(high, 16), int(low, 16) >> 24)
    listed = s3.list_objects_v2(Bucket=bucket, Prefix="database-backups/ra-main/wal/")["Contents"]
    (key,) = [one["Key"] for one in listed if one["Key"].rpartition("/")[2].startswith(gone + "-")]
    body = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    s3.delete_object(Bucket=bucket, Key=key)
    # Of what lies behind the last one that is there nobody can know that it is missing: there is another one.
    following = "%s%08X" % (gone[:16], int(gone[16:], 16) + 1)
    s3.put_object(Bucket=bucket, Key=key.replace(gone, following), Body=body)
    refused = recovered(copy, "--to-lsn", written[HALF + 2]["lsn"], code=5)
    assert f"{gone} to {gone} (1) are missing" in refused["message"]
    assert copy.check_output("ls -A %s", COPY) == ""
    recovered(copy, "--to-end", "--to-gap")
    assert rows(copy) == list(range(1, HALF + 1))
