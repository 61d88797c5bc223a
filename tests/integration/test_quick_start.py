# SPDX-License-Identifier: GPL-3.0-or-later
"""docs/quick-start.md: every command of its first half runs as it stands there; those of the second half in molecule/default."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from demo.servers import MotoS3, PostgresServer, wheel_bindir

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs" / "quick-start.md").read_text(encoding="utf-8")
FIRST_HALF = GUIDE.split("## With Ansible")[0]


def blocks(language: str) -> list[str]:
    """Return the code blocks of `language` in the first half of the guide."""
    return re.findall(r"^```%s\n(.*?)^```" % language, FIRST_HALF, re.MULTILINE | re.DOTALL)


@pytest.fixture
def host(tmp_path):
    """A server with a database `orders`, a store with the bucket, and the environment of the guide's shell."""
    with PostgresServer(wheel_bindir(18), tmp_path / "pg") as server, MotoS3(tmp_path / "s3") as store:
        server.run("createdb", "orders")
        server.run(
            "psql",
            "-d",
            "orders",
            "-c",
            "CREATE TABLE customers AS SELECT i, md5(i::text) AS name FROM generate_series(1, 500) i",
        )
        config = yaml.safe_load(blocks("yaml")[0])
        store.create_bucket(config["s3"]["bucket"])
        keys = blocks("ini")[0].replace("EXAMPLEKEY", store.access_key).replace("example-secret", store.secret_key)
        assert store.secret_key in keys
        credentials = tmp_path / "aws_credentials"
        credentials.write_text(keys)
        credentials.chmod(0o600)
        config["postgres"] |= {"login_unix_socket": str(server.socket_dir), "login_port": server.port}
        config["s3"] |= {
            "endpoint_url": store.endpoint_url,
            "addressing_style": "path",
            "credentials_file": str(credentials),
        }
        config |= {
            "local": {"path": str(tmp_path / "backups")},
            "state_dir": str(tmp_path / "state"),
            "log_dir": str(tmp_path / "log"),
        }
        (tmp_path / "config.yml").write_text(yaml.safe_dump(config))
        (tmp_path / "config.yml").chmod(0o600)
        programs = tmp_path / "bin"
        programs.mkdir()
        subprocess.run([sys.executable, "-m", "tests.tools.program", str(programs / "pgops")], cwd=ROOT, check=True)
        path = os.pathsep.join(
            [str(programs), str(Path(sys.executable).parent), str(server.bindir), os.environ["PATH"]]
        )
        environment = server.env | {"PATH": path, "PGOPS_CONFIG": str(tmp_path / "config.yml")}
        yield server, environment, tmp_path


def test_every_command_of_the_first_half_runs_and_the_database_is_back(host):
    server, environment, tmp_path = host
    before = server.run(
        "psql", "-Atd", "orders", "-c", "SELECT md5(string_agg(c::text, ',' ORDER BY i)) FROM customers c"
    ).stdout
    script = "\n".join(blocks("sh"))
    assert script.count("pgops ") > 12
    done = subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", script],
        env=environment,
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    query = "SELECT md5(string_agg(c::text, ',' ORDER BY i)) FROM customers c"
    assert server.run("psql", "-Atd", "orders", "-c", query).stdout == before
    assert server.run("psql", "-Atd", "orders_rescue", "-c", query).stdout == before
    names = server.run("psql", "-Atd", "postgres", "-c", "SELECT datname FROM pg_database").stdout.split()
    assert sum(name.startswith("orders_before_") for name in names) == 1
    assert not [name for name in names if name.startswith("pgops-restore-")]


def test_the_cron_line_works_as_it_stands(host):
    """Cron looks for programs in /usr/bin and /bin alone, and the guide has laid ours elsewhere."""
    server, environment, tmp_path = host
    line = next(line for line in FIRST_HALF.splitlines() if "* * *" in line)
    command = line.split("postgres ", 1)[1]
    # Here the server's programs and Python's modules are not where a host has them.
    paths = [str(Path(sys.executable).parent), str(server.bindir), "/usr/bin", "/bin"]
    environment = environment | {"PATH": os.pathsep.join(paths)}
    command = command.replace("/usr/local/bin/pgops", str(tmp_path / "bin" / "pgops"))
    done = subprocess.run(
        ["sh", "-c", command], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == ""
    assert done.stderr == ""
