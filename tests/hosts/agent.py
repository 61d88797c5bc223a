# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role agent leaves on every host. A scenario takes these tests with `from tests.hosts.agent import *`."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from tests.hosts import instances_of
from tests.tools.collection_tree import ROOT

__all__ = (
    "test_a_file_of_the_host_is_as_it_should_be",
    "test_a_login_shell_completes_the_command",
    "test_logrotate_takes_the_rule",
    "test_only_the_account_reads_a_configuration_and_its_secrets",
    "test_the_credentials_are_read_back_by_amazons_own_library",
    "test_the_manual_page_reads",
    "test_the_packages_are_there",
    "test_the_program_is_the_one_of_this_collection",
    "test_there_is_one_version_of_the_program",
)

# path, kind, mode, owner
LAID = (
    ("/backups/postgres", "directory", 0o750, "postgres"),
    ("/etc/logrotate.d/pgops", "file", 0o644, "root"),
    ("/etc/pgops", "directory", 0o750, "postgres"),
    ("/etc/pgops/secrets", "directory", 0o700, "postgres"),
    ("/usr/local/bin/pgops", "file", 0o755, "root"),
    ("/usr/local/share/man/man1/pgops.1.gz", "file", 0o644, "root"),
    ("/usr/share/bash-completion/completions/pgops", "file", 0o644, "root"),
    ("/var/lib/pgops", "directory", 0o750, "postgres"),
    ("/var/log/backups", "directory", 0o750, "postgres"),
)
_PACKAGES = ("acl", "age", "python3-boto3", "python3-psycopg2", "python3-yaml", "zstd")
# What the program logs in to the store with, read by the library that Debian has, as the account.
_READ_BACK = "import json, botocore.session as b; c = b.get_session().get_credentials(); print(json.dumps([c.access_key, c.secret_key]))"


def credentials_of(instance: str, config: str) -> str:
    """Return the file with which an instance logs in to the store."""
    return f"/etc/pgops/secrets/{'config' if config.endswith('/config.yml') else instance}.aws_credentials"


@pytest.mark.parametrize(("path", "kind", "mode", "owner"), LAID)
def test_a_file_of_the_host_is_as_it_should_be(host: Any, path: str, kind: str, mode: int, owner: str) -> None:
    file = host.file(path)
    assert (file.is_directory, file.is_file) == (kind == "directory", kind == "file")
    assert (file.mode, file.user) == (mode, owner)


def test_the_packages_are_there(host: Any) -> None:
    assert [name for name in _PACKAGES if not host.package(name).is_installed] == []


def test_the_program_is_the_one_of_this_collection(host: Any) -> None:
    said = json.loads(host.check_output("pgops version --json"))
    assert said["version"] == yaml.safe_load((ROOT / "galaxy.yml").read_text())["version"]
    home = host.check_output("readlink -f /usr/local/lib/pgops/current")
    assert home.endswith(f"{said['version']}-{said['digest'][:12]}")


def test_there_is_one_version_of_the_program(host: Any) -> None:
    found = sorted(host.file("/usr/local/lib/pgops").listdir())
    assert len(found) == 2
    assert found[1] == "current"


def test_only_the_account_reads_a_configuration_and_its_secrets(host: Any) -> None:
    for instance, config in instances_of(host).items():
        credentials = credentials_of(instance, config)
        for path in (config, credentials):
            assert (host.file(path).mode, host.file(path).user, host.file(path).group) == (
                0o600,
                "postgres",
                "postgres",
            )
        assert host.run("sudo -u postgres pgops --config %s config --check", config).rc == 0
        assert host.run("sudo -u nobody pgops --config %s config --check", config).rc == 2


def test_the_credentials_are_read_back_by_amazons_own_library(host: Any, shared: dict[str, Any]) -> None:
    for instance, config in instances_of(host).items():
        variable = f"AWS_SHARED_CREDENTIALS_FILE={credentials_of(instance, config)}"
        said = host.check_output("sudo -u postgres env %s python3 -c %s", variable, _READ_BACK)
        assert json.loads(said) == [shared["lab_access_key"], shared["lab_secret_key"]]


def test_a_login_shell_completes_the_command(host: Any) -> None:
    said = host.check_output(
        "bash -c %s",
        "source /usr/share/bash-completion/completions/pgops; COMP_WORDS=(pgops ver); COMP_CWORD=1; _pgops; echo ${COMPREPLY[*]}",
    )
    assert said.split() == ["verify", "version"]


def test_the_manual_page_reads(host: Any) -> None:
    said = host.check_output("zcat /usr/local/share/man/man1/pgops.1.gz")
    assert said.startswith(".")
    assert ".SH" in said


def test_logrotate_takes_the_rule(host: Any) -> None:
    said = host.run("logrotate --debug /etc/logrotate.d/pgops")
    assert said.rc == 0
    assert "error" not in said.stderr
    assert "/var/log/backups/" in said.stderr
