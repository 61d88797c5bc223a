# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any

from tests.hosts import held, instances_of
from tests.hosts.bare import NOTHING
from tests.hosts.shop import asked, finished_segment, is_the_shop
from tests.tools.lab.machines import until

SERVICE = "pgops_wal_ship@up12-main"


def test_its_backups_are_still_read(host: Any) -> None:
    for config in instances_of(host).values():
        assert host.run("sudo -u postgres pgops --config %s verify --level structure", config).rc == 0


def test_what_is_amiss_is_mended_by_its_tag(playbook: Any, host: Any) -> None:
    """Settings of the server; and a service that an earlier play left with an older program, as its restart failed.

    And a configuration of an earlier name, by which the server archives until then, as that of the first of two instances.
    """
    asked(host, "postgres", "ALTER SYSTEM RESET archive_timeout")
    earlier = "/etc/pgops/earlier.yml"
    host.check_output(f"cp -a /etc/pgops/config.yml {earlier} && echo '# not as it is to be' >> /etc/pgops/config.yml")
    command = f"/usr/local/bin/pgops-wal wal archive --config {earlier} %p"
    asked(host, "postgres", f"ALTER SYSTEM SET archive_command = '{command}'")
    asked(host, "postgres", "SELECT pg_reload_conf()")
    current = host.check_output("readlink -f /usr/local/lib/pgops/current")
    older = "/usr/local/lib/pgops/0.0.8-0123456789ab"
    host.check_output(f"cp -a {current} {older} && ln -sfn {older} /usr/local/lib/pgops/current")
    host.check_output("systemctl restart %s", SERVICE)
    assert until(lambda: held(host, SERVICE) == [older], 60) is not None
    host.check_output(f"ln -sfn {current.rpartition('/')[2]} /usr/local/lib/pgops/current")
    assert playbook("site", "--tags", "agent_configure,agent_install,wal_archive_configure").returncode == 0
    assert asked(host, "postgres", "SHOW archive_timeout") == "1min"
    assert "/etc/pgops/config.yml" in asked(host, "postgres", "SHOW archive_command")
    assert not host.file(earlier).exists, "nothing archives by it any more"
    assert until(lambda: held(host, SERVICE) == [current], 60) is not None
    assert not host.file(older).exists


def test_a_service_of_an_earlier_name_is_in_nobodys_way(ansible_play: Any, host: Any) -> None:
    """As when an instance was renamed: its configuration is the same file, and so are the locks."""
    earlier = "pgops_wal_ship@was12-main"
    host.check_output(f"cp /etc/systemd/system/{SERVICE}.service /etc/systemd/system/{earlier}.service")
    host.check_output(
        "systemctl disable --now %s && systemctl daemon-reload && systemctl enable --now %s", SERVICE, earlier
    )
    assert ansible_play("archive.yml").returncode == 0
    assert host.run("systemctl list-unit-files --all --no-legend %s", f"{earlier}*").stdout == ""
    assert not host.service(earlier).is_running
    assert host.service(SERVICE).is_enabled
    assert until(lambda: bool(held(host, SERVICE)), 60) is not None
    assert host.check_output("systemctl show --property=NRestarts --value %s", SERVICE) == "0"


def test_the_program_stays_while_a_server_archives_with_it(ansible_play: Any, host: Any) -> None:
    said = ansible_play("away.yml", lab_role="agent")
    assert said.returncode != 0
    assert "wal_archive_state: absent first" in " ".join((said.stdout + said.stderr).split())
    assert host.service(SERVICE).is_running
    assert [path for path in NOTHING if path.startswith("/etc/cron") and not host.file(path).exists] == []
    assert host.run("pgops version").rc == 0


def test_the_archiving_ends_without_a_server_that_keeps_its_wal(ansible_play: Any, host: Any) -> None:
    assert ansible_play("away.yml", lab_role="wal_archive").returncode == 0
    assert not host.service(SERVICE).is_running
    assert host.run("systemctl list-unit-files --all --no-legend %s", "pgops_wal_ship*").stdout == ""
    segment = finished_segment(host)
    newest = "SELECT last_archived_wal FROM pg_stat_archiver"
    assert until(lambda: asked(host, "postgres", newest) >= segment, 60) is not None
    again = ansible_play("away.yml", "--check", lab_role="wal_archive")
    assert again.returncode == 0
    assert "changed=0" in again.stdout


def test_what_somebody_wrote_by_hand_keeps_the_program_too(ansible_play: Any, host: Any) -> None:
    by_hand = "/etc/postgresql/15/main/conf.d/by_hand.conf"
    host.check_output("echo \"archive_command = '/usr/local/bin/pgops wal archive %%p'\" > %s", by_hand)
    try:
        said = ansible_play("away.yml", lab_role="agent")
        assert said.returncode != 0
        assert f"{by_hand} still needs pgops" in " ".join((said.stdout + said.stderr).split())
    finally:
        host.check_output("rm %s", by_hand)


def test_then_the_program_goes_and_the_backups_stay(ansible_play: Any, host: Any) -> None:
    assert ansible_play("away.yml", lab_role="agent").returncode == 0
    assert [path for path in NOTHING if host.file(path).exists] == []
    assert host.file("/backups/postgres/up12-main/sets").listdir()
    is_the_shop(host)
