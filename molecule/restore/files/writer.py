# SPDX-License-Identifier: GPL-3.0-or-later
"""A writer on the server that will be lost: rows, one by one, and what is known of each; it ends when S3 has its WAL."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import psycopg2

ROWS = 40
POINT = 20


def main() -> None:
    """Write, and print a list of [number, moment, LSN, transaction]; the restore point `before the sale` follows row 20."""
    connection = psycopg2.connect(dbname="shop")
    connection.autocommit = True
    asked = connection.cursor()
    asked.execute("CREATE TABLE ticks (no int PRIMARY KEY)")
    told = []
    for no in range(1, ROWS + 1):
        asked.execute("INSERT INTO ticks VALUES (%s) RETURNING txid_current()::text", (no,))
        (xid,) = asked.fetchone()
        asked.execute("SELECT clock_timestamp(), pg_current_wal_insert_lsn()::text")
        moment, position = asked.fetchone()
        told.append([no, moment.isoformat(), position, xid])
        if no == POINT:
            asked.execute("SELECT pg_create_restore_point('before the sale'), pg_switch_wal()")
        time.sleep(0.02)
    asked.execute("SELECT pg_walfile_name(pg_switch_wal())")
    (last,) = asked.fetchone()
    deadline = time.monotonic() + 120
    while not arrived(last):
        if time.monotonic() > deadline:
            raise SystemExit("S3 does not have %s" % last)
        time.sleep(0.5)
    sys.stdout.write(json.dumps(told) + "\n")


def arrived(segment: str) -> bool:
    """Tell whether the service has copied everything up to the segment."""
    said = subprocess.run(["pgops", "--json", "wal", "status"], capture_output=True, check=False).stdout
    known = json.loads(said)
    return bool((known["server"]["last_archived"] or "") >= segment and not known["shipping"]["pending"])


if __name__ == "__main__":
    main()
