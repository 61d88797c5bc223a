# SPDX-License-Identifier: GPL-3.0-or-later
"""The schedule on a host: cron's table or systemd's units, one of the two, and systemd told in the right order."""

from __future__ import annotations

import os
import pwd
import re
import shlex
import shutil
import stat
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import (
    PgopsError,
    UnreachableError,
    UsageError,
)
from ansible_collections.pgops.backup.plugins.module_utils._engine.host.changes import Host
from ansible_collections.pgops.backup.plugins.module_utils._engine.host.looking import lacking
from ansible_collections.pgops.backup.plugins.module_utils._engine.host.schedule import (
    Instance,
    Places,
    Request,
    lay_down,
    started_by,
    take_away,
)
from ansible_collections.pgops.backup.plugins.module_utils._engine.host.units import Common

NOW = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)
ACCOUNT = pwd.getpwuid(os.geteuid()).pw_name
# Of 10, as systemd-analyze counts.
MOST_EXPOSED = 3.0
SYSTEMD = shutil.which("systemd-analyze")
# Keeps what is active in a file beside it and writes down each call, as systemd is not there to be asked.
SYSTEMCTL = """\
#!/bin/sh
cd "$(dirname "$0")" || exit 1
[ "$1" = show ] || echo "$@" >> calls
verb=$1; shift
case $verb in
    start) for unit; do [ -e lame ] || echo "$unit" >> active; done ;;
    stop) for unit; do grep -vxF "$unit" active > rest; mv rest active; done ;;
    show) shift; for unit; do
        state=inactive; grep -qxF "$unit" active && state=active
        reload=no; [ -e "reload-$unit" ] && reload=yes
        printf 'Id=%s\\nActiveState=%s\\nNeedDaemonReload=%s\\n\\n' "$unit" $state $reload; done ;;
    daemon-reload) rm -f reload-* ;;
esac
"""


class Machine:
    """A host below a directory, with or without a systemd that answers."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.tools = root / "tools"
        for folder in ("cron.d", "units", "stamps", "tools", "etc", "sbin"):
            (root / folder).mkdir()
        self.program = root / "pgops"
        self.program.write_text("#!/bin/sh\n")
        self.program.chmod(0o755)
        (root / "sbin" / "cron").write_bytes(b"a cron of Debian")
        self.places = Places(
            cron_table=root / "cron.d" / "pgops",
            units=root / "units",
            stamps=root / "stamps",
            running=root / "running",
            cron_programs=(root / "sbin" / "cron", root / "sbin" / "crond"),
            mailer=root / "sbin" / "sendmail",
            os_release=root / "etc" / "os-release",
        )
        self.places.os_release.write_text("ID=debian\n")
        self.places.mailer.touch()
        self.config = root / "etc" / "config.yml"
        self.config.write_text(
            '{"instance": "db1-main", "local": {"path": "/srv/b"}, "state_dir": "/srv/s", "log_dir": "/srv/l"}'
        )

    def boot(self) -> None:
        (self.root / "running").mkdir()
        tool = self.tools / "systemctl"
        tool.write_text(SYSTEMCTL)
        tool.chmod(0o755)
        (self.tools / "active").touch()

    @property
    def calls(self) -> list[str]:
        path = self.tools / "calls"
        said = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return said

    def instance(self, name: str = "db1-main", **others: Any) -> Instance:
        return Instance(**{"name": name, "config": str(self.config), **others})

    def request(self, kind: str, *instances: Instance, **others: Any) -> Request:
        common = Common(
            program=str(self.program),
            account=ACCOUNT,
            **{k: others.pop(k) for k in ("mailto", "catch_up") if k in others},
        )
        return Request(
            kind=kind, instances=instances or (self.instance(),), common=common, places=self.places, **others
        )

    def lay(self, request: Request, *, dry_run: bool = False) -> dict[str, Any]:
        host = Host(dry_run=dry_run, clock=lambda: NOW)
        return {**lay_down(host, request, name="db1"), "warnings": host.warnings}

    def unit(self, name: str) -> str:
        return (self.places.units / name).read_text()

    def table(self) -> list[str]:
        lines = self.places.cron_table.read_text().splitlines()
        return [line for line in lines if re.match(r"[0-9*]", line)]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(tmp_path)
    monkeypatch.setenv("PATH", "%s:/usr/bin:/bin" % made.tools)
    return made


# --- cron -------------------------------------------------------------------------------------------------------------


def test_cron_runs_what_the_configuration_says(machine: Machine) -> None:
    result = machine.lay(machine.request("cron"))
    end = "nice -n 10 ionice -c 3 %s %%s --config %s --wait 6h --quiet" % (machine.program, machine.config)
    assert machine.table() == [
        "0 2 * * * %s %s" % (ACCOUNT, end % "backup"),
        # There is no S3 place to copy to.
        "0 3 * * * %s %s" % (ACCOUNT, end % "verify"),
        "0 1 * * 0 %s %s" % (ACCOUNT, end % "prune"),
    ]
    text = machine.places.cron_table.read_text()
    for line in ('MAILTO="root"', "SHELL=/bin/sh", "CRON_TZ=", "PATH=/usr/local/sbin:/usr/local/bin:"):
        assert re.search("^%s" % re.escape(line), text, re.MULTILINE), line
    assert stat.S_IMODE(machine.places.cron_table.stat().st_mode) == 0o644
    assert "." not in machine.places.cron_table.name  # Debian's cron reads no such file
    assert text.endswith("\n")  # nor a last line without an end
    assert result["files"] == [str(machine.places.cron_table)]
    assert set(result["next_runs"]["db1-main"]) == {"backup", "verify", "prune"}
    assert started_by(machine.places, "db1-main") == "cron"
    assert started_by(machine.places, "db1") == ""


CHANNEL = '{"instance": "db1-main", "alerts": {"email": {"to": ["a@example.com"]}}}'


def test_where_there_is_a_channel_somebody_looks_every_quarter_of_an_hour(machine: Machine) -> None:
    machine.config.write_text(CHANNEL)
    machine.lay(machine.request("cron", random_delay="15min"))
    (line,) = [line for line in machine.table() if " alert " in line]
    assert line.startswith("*/15 * * * * %s sleep $(shuf -i 0-300 -n 1) && " % ACCOUNT), (
        "a delay that leaves out no run"
    )
    assert line.endswith("%s alert evaluate --config %s --quiet" % (machine.program, machine.config)), (
        "it waits for nobody"
    )
    machine.boot()
    machine.lay(machine.request("systemd"))
    assert "pgops-alert@db1-main.timer" in (machine.tools / "active").read_text()
    service = machine.unit("pgops-alert@db1-main.service")
    assert "ExecStart=%s alert evaluate --config %s\n" % (machine.program, machine.config) in service
    assert "OnCalendar=*-*-* *:00,15,30,45:00" in machine.unit("pgops-alert@db1-main.timer")
    assert "OnFailure" not in service, "it would start itself"
    unit_part = machine.unit("pgops-backup@db1-main.service").partition("[Service]")[0]
    assert "\nOnFailure=pgops-alert@db1-main.service\n" in unit_part, "who was killed tells nobody"
    machine.lay(machine.request("systemd", machine.instance(jobs={"alert": ""})))
    assert "OnFailure" not in machine.unit("pgops-backup@db1-main.service")
    machine.lay(machine.request("cron", machine.instance(jobs={"alert": ""})))
    assert not [line for line in machine.table() if " alert " in line]


def test_where_nothing_is_mailed_and_nobody_is_alerted_a_person_is_told(machine: Machine) -> None:
    instances = [machine.instance("db1-main"), machine.instance("db1-other", jobs={"alert": "*/15 * * * *"})]
    assert machine.lay(machine.request("cron", *instances))["warnings"] == []
    machine.places.mailer.unlink()
    (warning,) = machine.lay(machine.request("cron", *instances))["warnings"]
    assert warning.startswith("A failed job of db1-main reaches nobody: ")
    assert "mails nothing to root" in warning
    assert "dma" in warning
    assert machine.lay(machine.request("cron", *instances, mailto=""))["warnings"] == [], "nobody asked for mail"
    machine.boot()
    (warning,) = machine.lay(machine.request("systemd", *instances))["warnings"]
    assert warning.startswith("A failed job of db1-main reaches nobody: systemd mails nothing, and")
    assert machine.lay(machine.request("systemd", instances[1]))["warnings"] == []


def test_a_second_run_changes_nothing_and_a_dry_run_touches_nothing(machine: Machine) -> None:
    request = machine.request("cron")
    assert machine.lay(request, dry_run=True)["changed"]
    assert not machine.places.cron_table.exists()
    assert machine.lay(request)["changed"]
    assert not machine.lay(request)["changed"]


def test_a_command_comes_through_cron_and_the_shell_as_it_is_meant(machine: Machine) -> None:
    odd = machine.root / "etc" / "a b%c'd\"e$f.yml"
    odd.write_text('{"instance": "odd"}')
    show = machine.root / "pgops"
    show.write_text('#!/bin/sh\nfor word; do echo "$word"; done\n')
    machine.lay(machine.request("cron", machine.instance("odd", config=str(odd))))
    command = machine.table()[0].split(" ", 6)[6]
    # What cron does to a command (crontab(5)): a percent sign ends it, one behind a backslash is one.
    assert not re.search(r"(?<!\\)%", command)
    done = subprocess.run(["/bin/sh", "-c", command.replace("\\%", "%")], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["backup", "--config", str(odd), "--wait", "6h", "--quiet"]


def test_what_fell_into_a_downtime_is_caught_up_at_the_boot_by_cron_too(machine: Machine) -> None:
    def at_boot() -> list[str]:
        lines = machine.places.cron_table.read_text().splitlines()
        return [line for line in lines if line.startswith("@reboot ")]

    machine.lay(
        machine.request("cron", machine.instance("db1-main"), machine.instance("db1-other"), random_delay="15min")
    )
    assert len(at_boot()) == 2
    start = "@reboot %s sleep $(shuf -i 0-900 -n 1) && nice -n 10 ionice -c 3 " % ACCOUNT
    assert all(line.startswith(start) for line in at_boot())
    words = shlex.split(at_boot()[0].partition(" ionice -c 3 ")[2])
    assert words[:4] == [str(machine.program), "catch-up", "--config", str(machine.config)]
    assert words[4:8] == ["--job", "backup=0 2 * * *", "--job", "verify=0 3 * * *"]
    assert words[-3:] == ["--wait", "6h", "--quiet"]
    # What the table has not, is not caught up either, whatever the configuration says.
    machine.lay(machine.request("cron", machine.instance(jobs={"prune": "", "backup": "0 4 * * *"})))
    assert "prune" not in at_boot()[0]
    assert "--job 'backup=0 4 * * *'" in at_boot()[0]
    machine.lay(machine.request("cron", catch_up=False))
    assert at_boot() == []
    assert "is left out" in machine.places.cron_table.read_text()
    only = dict.fromkeys(("backup", "sync", "verify", "prune"), "")
    machine.lay(machine.request("cron", machine.instance(jobs={**only, "alert": "*/15 * * * *"})))
    assert at_boot() == [], "there is nothing to catch up"


def test_a_random_delay_is_slept_and_no_wait_is_no_option(machine: Machine) -> None:
    machine.lay(machine.request("cron", random_delay="15min", wait="0s"))
    command = machine.table()[0].split(" ", 6)[6]
    assert command.startswith("sleep $(shuf -i 0-900 -n 1) && nice ")
    assert "--wait" not in command
    asked = subprocess.run(["/bin/sh", "-c", "shuf -i 0-900 -n 1"], capture_output=True, text=True, check=True)
    assert 0 <= int(asked.stdout) <= 900


def test_a_zone_that_this_cron_does_not_know_is_refused(machine: Machine) -> None:
    with pytest.raises(UsageError, match="knows no other time zone") as told:
        machine.lay(machine.request("cron", timezone="Pacific/Chatham", mailto='a" b'))
    assert told.value.message.startswith("The schedule has 2 errors:\n"), "once, not for each job"
    assert not machine.places.cron_table.exists()
    # That of the other cron does.
    (machine.root / "sbin" / "crond").write_bytes(b"\0CRON_TZ\0")
    machine.lay(machine.request("cron", timezone="Pacific/Chatham"))
    assert "CRON_TZ=Pacific/Chatham\n" in machine.places.cron_table.read_text()


def test_a_look_finds_a_zone_that_the_cron_to_come_will_not_know(machine: Machine) -> None:
    """Of Debian that is known before it is installed; so nothing else is laid down first."""

    def looked(_host: Host) -> bool:
        return bool(lay_down(_host, machine.request("cron", timezone="Pacific/Chatham"), name="db1")["changed"])

    (machine.root / "sbin" / "cron").unlink()
    with pytest.raises(UsageError, match="knows no other time zone"):
        lacking(Host(clock=lambda: NOW), {"schedule": [looked]})
    machine.places.os_release.write_text('ID="rocky"\nID_LIKE="rhel centos fedora"\n')
    assert lacking(Host(clock=lambda: NOW), {"schedule": [looked]}) == ["schedule"], "cronie knows it"


def test_several_instances_each_have_their_own(machine: Machine) -> None:
    second = machine.root / "etc" / "two.yml"
    second.write_text('{"instance": "two", "s3": {"bucket": "b"}, "schedule": {"verify": "", "backup": "@hourly"}}')
    jobs = {"prune": "0 4 * * mon", "sync": None}
    machine.lay(machine.request("cron", machine.instance(), machine.instance("two", config=str(second), jobs=jobs)))
    assert [(line.split(" ", 5)[:5], line.split()[13]) for line in machine.table()[3:]] == [
        (["0", "*", "*", "*", "*"], "backup"),
        (["30", "2", "*", "*", "*"], "sync"),
        (["0", "4", "*", "*", "1"], "prune"),
    ]


# --- systemd ----------------------------------------------------------------------------------------------------------


def test_systemd_gets_a_service_and_a_timer_for_each_job(machine: Machine) -> None:
    machine.boot()
    request = machine.request("systemd", timezone="Europe/Berlin", random_delay="10min")
    result = machine.lay(request)
    timers = ["pgops-%s@db1-main.timer" % verb for verb in ("backup", "verify", "prune")]
    assert machine.calls == ["daemon-reload", "start %s" % " ".join(timers)]
    service, timer = machine.unit("pgops-backup@db1-main.service"), machine.unit("pgops-backup@db1-main.timer")
    assert "ExecStart=%s backup --config %s --wait 6h\n" % (machine.program, machine.config) in service
    for path in ("/srv/b", "/srv/s", "/srv/l"):
        assert "ReadWritePaths=-%s\n" % path in service
    assert "User=%s\n" % ACCOUNT in service
    (after,) = re.findall(r"^After=(network.*)$", service, re.MULTILINE)
    assert {"network-online.target", "postgresql.service", "postgresql-17.service", "patroni.service"} < set(
        after.split()
    )
    for line in ("OnCalendar=*-*-* 02:00:00 Europe/Berlin", "RandomizedDelaySec=600", "Persistent=yes"):
        assert "%s\n" % line in timer
    for name in timers:
        assert os.readlink(machine.places.units / "timers.target.wants" / name) == str(machine.places.units / name)
    assert result["next_runs"]["db1-main"]["backup"] == "2026-11-23T01:00:00+00:00"
    assert started_by(machine.places, "db1-main") == "systemd"
    again = machine.lay(request)
    assert (again["changed"], machine.calls) == (False, [])


def test_jobs_that_are_caught_up_at_once_have_their_turns(machine: Machine) -> None:
    jobs = dict.fromkeys(("backup", "base", "sync", "verify", "prune", "alert"), "0 2 * * *")
    machine.lay(machine.request("systemd", machine.instance(jobs=jobs)))
    waits = {}
    for verb in jobs:
        service = machine.unit("pgops-%s@db1-main.service" % verb)
        after = " ".join(re.findall(r"^After=(.*)$", service, re.MULTILINE))
        waits[verb] = re.findall(r"pgops-([a-z]+)@db1-main[.]service", after)
    order = ["backup", "base", "sync", "verify", "prune"]
    assert waits == {**{verb: order[: order.index(verb)] for verb in order}, "alert": []}


@pytest.mark.parametrize(("delay", "told"), [("29min", False), ("45min", True)])
def test_a_delay_that_lets_the_copy_come_before_the_backup_is_told(machine: Machine, delay: str, told: bool) -> None:
    jobs = {"backup": "0 2 * * *", "base": "0 0 * * 0", "sync": "30 2 * * *"}
    result = machine.lay(machine.request("systemd", machine.instance(jobs=jobs), random_delay=delay))
    said = [text for text in result["warnings"] if "random_delay" in text]
    assert len(said) == told
    assert all("A backup of db1-main may be delayed by up to 45 min" in text for text in said)


def test_where_the_next_copy_is_near_it_may_come_first(machine: Machine) -> None:
    jobs = {"backup": "0 * * * *", "sync": "*/5 * * * *"}
    result = machine.lay(machine.request("systemd", machine.instance(jobs=jobs), random_delay="10min"))
    assert [text for text in result["warnings"] if "random_delay" in text] == []


@pytest.mark.skipif(not SYSTEMD, reason="there is no systemd-analyze")
def test_systemd_finds_the_units_right_and_safe(machine: Machine, tmp_path: Path) -> None:
    odd = machine.root / "etc" / "a b%c'd\"e$f;.yml"
    odd.write_text('{"instance": "odd"}')
    machine.lay(
        machine.request(
            "systemd",
            machine.instance("odd.1_x", config=str(odd), paths=["/srv/a b%c$d", '/srv/"q"']),
            timezone="America/New_York",
        )
    )
    units = [str(path) for path in sorted(machine.places.units.glob("pgops-*"))]
    assert len(units) == 6
    environment = {"PATH": os.environ["PATH"], "SYSTEMD_UNIT_PATH": "%s:" % machine.places.units, "LC_ALL": "C"}
    told = subprocess.run(
        [str(SYSTEMD), "verify", "--man=no", *units], capture_output=True, text=True, check=False, env=environment
    )
    assert (told.returncode, told.stdout + told.stderr) == (0, "")
    scored = subprocess.run(
        [str(SYSTEMD), "security", "--offline=true", "--no-pager", units[0]],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    score = re.search(r"Overall exposure level for .*: ([0-9.]+)", scored.stdout)
    assert score, scored.stdout + scored.stderr
    assert float(score[1]) <= MOST_EXPOSED


def test_words_of_a_unit_are_quoted_as_systemd_reads_them(machine: Machine) -> None:
    odd = machine.root / "etc" / "a b%c$d.yml"
    odd.write_text('{"instance": "odd"}')
    machine.lay(machine.request("systemd", machine.instance("odd", config=str(odd))))
    line = next(s for s in machine.unit("pgops-backup@odd.service").splitlines() if s.startswith("ExecStart="))
    words = [word.replace("%%", "%").replace("$$", "$") for word in shlex.split(line[len("ExecStart=") :])]
    assert words == [str(machine.program), "backup", "--config", str(odd), "--wait", "6h"]


def test_a_new_calendar_counts_from_now_on(machine: Machine) -> None:
    machine.boot()
    machine.lay(machine.request("systemd"))
    assert machine.calls
    stamps = {name: machine.places.stamps / ("stamp-pgops-%s@db1-main.timer" % name) for name in ("backup", "verify")}
    for stamp in stamps.values():
        stamp.touch()
        os.utime(stamp, (1_000_000_000, 1_000_000_000))
    result = machine.lay(machine.request("systemd", machine.instance(jobs={"backup": "0 4 * * *"})))
    name = "pgops-backup@db1-main.timer"
    assert [entry["after_header"] for entry in result["diff"]] == [str(machine.places.units / name)]
    # Stopped first: at the reload, systemd would catch up what the old calendar had not promised.
    assert machine.calls == ["stop %s" % name, "daemon-reload", "start %s" % name]
    assert stamps["backup"].stat().st_mtime > 1_500_000_000
    assert stamps["verify"].stat().st_mtime == 1_000_000_000


def test_a_job_that_is_no_more_goes_with_its_stamp(machine: Machine) -> None:
    machine.boot()
    machine.lay(machine.request("systemd", machine.instance(), machine.instance("two")))
    other = machine.places.units / "pgops-mine@two.timer"
    other.write_text("[Timer]\n")
    stamp = machine.places.stamps / "stamp-pgops-prune@db1-main.timer"
    stamp.touch()
    assert machine.calls
    result = machine.lay(machine.request("systemd", machine.instance(jobs={"prune": ""})))
    gone = {Path(path).name for path in result["removed"]}
    assert gone == {
        "pgops-%s.%s" % (job, end)
        for job in ("prune@db1-main", "backup@two", "verify@two", "prune@two")
        for end in ("service", "timer")
    }
    assert other.exists()  # not of ours
    assert not stamp.exists()
    calls = machine.calls
    assert [call.split()[0] for call in calls] == ["stop", "daemon-reload", "reset-failed"]
    assert not any(".service" in word for word in calls[0].split())  # a run that has begun goes on
    left = sorted(path.name for path in (machine.places.units / "timers.target.wants").iterdir())
    assert left == ["pgops-backup@db1-main.timer", "pgops-verify@db1-main.timer"]


def test_a_timer_that_somebody_stopped_is_started_and_one_that_is_stale_is_read_anew(machine: Machine) -> None:
    machine.boot()
    request = machine.request("systemd")
    machine.lay(request)
    assert machine.calls
    (machine.tools / "active").write_text("pgops-backup@db1-main.timer\n")
    (machine.tools / "reload-pgops-backup@db1-main.service").touch()
    assert machine.lay(request, dry_run=True)["changed"]
    assert machine.calls == []
    assert machine.lay(request)["changed"]
    assert machine.calls == ["daemon-reload", "start pgops-verify@db1-main.timer pgops-prune@db1-main.timer"]
    assert not machine.lay(request)["changed"]


def test_what_an_administrator_masked_stays_and_is_told_before_anything_is_touched(machine: Machine) -> None:
    machine.boot()
    for name in ("pgops-prune@db1-main.timer", "pgops-verify@db1-main.service"):
        (machine.places.units / name).symlink_to("/dev/null")
    with pytest.raises(PgopsError) as raised:
        machine.lay(machine.request("systemd"))
    assert (
        "pgops-prune@db1-main.timer" in raised.value.message and "pgops-verify@db1-main.service" in raised.value.message
    )
    assert "systemctl unmask pgops-verify@db1-main.service pgops-prune@db1-main.timer." in raised.value.hint
    assert sorted(path.name for path in machine.places.units.iterdir()) == [
        "pgops-prune@db1-main.timer",
        "pgops-verify@db1-main.service",
    ]
    # What else the host lacks is done all the same.
    request = machine.request("systemd")
    assert lacking(Host(), {"schedule": [lambda host: bool(lay_down(host, request, name="db1")["changed"])]}) == [
        "schedule"
    ]
    jobs = {"prune": "", "verify": ""}
    result = machine.lay(machine.request("systemd", machine.instance(jobs=jobs)))
    assert [Path(path).name for path in result["files"]] == [
        "pgops-backup@db1-main.service",
        "pgops-backup@db1-main.timer",
    ]
    assert os.readlink(machine.places.units / "pgops-prune@db1-main.timer") == "/dev/null"
    machine.lay(machine.request("cron"))
    assert os.readlink(machine.places.units / "pgops-prune@db1-main.timer") == "/dev/null"


def test_a_table_of_cron_is_no_unit_that_could_be_masked(machine: Machine) -> None:
    machine.places.cron_table.parent.mkdir(parents=True, exist_ok=True)
    machine.places.cron_table.symlink_to("/dev/null")
    machine.lay(machine.request("cron"))
    assert "pgops" in machine.places.cron_table.read_text()


def test_what_an_administrator_adds_to_a_unit_stays(machine: Machine) -> None:
    machine.boot()
    machine.lay(machine.request("systemd"))
    added = machine.places.units / "pgops-backup@db1-main.service.d" / "override.conf"
    added.parent.mkdir()
    added.write_text("[Service]\nNice=19\n")
    for kind in ("systemd", "cron"):
        machine.lay(machine.request(kind))
        assert added.read_text() == "[Service]\nNice=19\n"


def test_a_timer_that_does_not_begin_is_an_error(machine: Machine) -> None:
    machine.boot()
    (machine.tools / "lame").touch()
    with pytest.raises(PgopsError, match="does not begin"):
        machine.lay(machine.request("systemd"))


def test_where_systemd_does_not_run_the_timers_are_enabled_and_that_is_told(machine: Machine) -> None:
    (machine.tools / "systemctl").write_text("#!/bin/sh\nexit 1\n")
    (machine.tools / "systemctl").chmod(0o755)
    result = machine.lay(machine.request("systemd"))
    assert "does not run here" in result["warnings"][1]
    assert (machine.places.units / "timers.target.wants" / "pgops-backup@db1-main.timer").is_symlink()


# --- from one to the other --------------------------------------------------------------------------------------------


def test_switching_removes_the_other_kind(machine: Machine) -> None:
    machine.boot()
    machine.lay(machine.request("cron"))
    result = machine.lay(machine.request("systemd"))
    assert result["removed"] == [str(machine.places.cron_table)]
    back = machine.lay(machine.request("cron"))
    assert len(back["removed"]) == 9  # three services, three timers and their links
    assert list(machine.places.units.glob("pgops-*")) == []
    assert machine.places.cron_table.exists()
    assert not machine.lay(machine.request("cron"))["changed"]


@pytest.mark.parametrize("kind", ["cron", "systemd"])
def test_taking_it_away_leaves_nothing(machine: Machine, kind: str) -> None:
    machine.boot()
    request = machine.request(kind)
    machine.lay(request)
    planned = take_away(Host(dry_run=True), request)
    result = take_away(Host(), request)
    assert result["removed"] == planned["removed"] != []
    assert not machine.places.cron_table.exists()
    assert [path for path in machine.places.units.rglob("*") if not path.is_dir()] == []
    assert not take_away(Host(), request)["changed"]


# --- errors -----------------------------------------------------------------------------------------------------------


def test_every_error_is_told_at_once(machine: Machine) -> None:
    instances = (
        machine.instance("a", jobs={"backup": "0 25 * * *", "prune": "never"}),
        machine.instance("a", paths=["relative"]),
        machine.instance("b/../c"),
        machine.instance("d", config=str(machine.root / "none.yml")),
    )
    with pytest.raises(UsageError) as caught:
        machine.lay(machine.request("cron", *instances, mailto='a" b'))
    for part in (
        "'a' is there twice",
        "mailto: 'a\" b' is no address",
        "instances, a, backup: '0 25 * * *' is not a calendar",
        "instances, a, prune: 'never' is not a calendar",
        "instances, a: expected a path from the root (/…), found 'relative'",
        "instances, b/../c: 'b/../c' cannot name an instance",
        "instances, d: There is no configuration file",
    ):
        assert part in str(caught.value), part
    assert not machine.places.cron_table.exists()


@pytest.mark.parametrize("missing", ["cron", "program", "account"])
def test_what_is_missing_is_an_error_and_in_a_dry_run_a_warning(machine: Machine, missing: str) -> None:
    request = machine.request("cron")
    error: type[PgopsError] = UsageError
    if missing == "cron":
        (machine.root / "sbin" / "cron").unlink()
        error = UnreachableError
    elif missing == "program":
        machine.program.unlink()
    else:
        request = Request(
            instances=request.instances,
            common=Common(program=str(machine.program), account="nobody-of-that-name"),
            places=machine.places,
        )
    with pytest.raises(error):
        machine.lay(request)
    assert "Without check mode" in machine.lay(request, dry_run=True)["warnings"][0]
    assert not machine.places.cron_table.exists()


def test_on_a_bare_host_a_dry_run_takes_the_defaults(machine: Machine) -> None:
    machine.config.unlink()
    result = machine.lay(machine.request("cron"), dry_run=True)
    assert "taken for the defaults" in result["warnings"][0]
    assert result["next_runs"]["db1-main"]["backup"] == "2026-11-23T02:00:00+00:00"


def test_what_is_given_in_full_needs_no_configuration(machine: Machine) -> None:
    machine.config.unlink()
    jobs = {"backup": "0 2 * * *", "base": "", "sync": "", "verify": "", "prune": "", "alert": ""}
    options = {"timezone": "", "random_delay": "0s", "wait": "6h"}
    machine.lay(machine.request("cron", machine.instance(jobs=jobs, paths=["/srv/b"]), **options))
    assert len(machine.table()) == 1


def test_a_command_that_cron_would_cut_off_is_refused(machine: Machine) -> None:
    deep = machine.root.joinpath(*["d" * 200] * 5)
    deep.mkdir(parents=True)
    (deep / "c.yml").write_text("{}")
    with pytest.raises(UsageError, match="too long for cron"):
        machine.lay(machine.request("cron", machine.instance(config=str(deep / "c.yml"))))


# --- base backups -----------------------------------------------------------------------------------------------------


def test_where_wal_is_archived_a_base_backup_is_made_each_week(machine: Machine) -> None:
    machine.config.write_text('{"instance": "db1-main", "wal": {"enabled": true}}')
    result = machine.lay(machine.request("cron"))
    (line,) = [line for line in machine.table() if "--kind base" in line]
    assert line.startswith("0 0 * * 0 %s " % ACCOUNT)
    assert line.endswith("%s backup --kind base --config %s --wait 6h --quiet" % (machine.program, machine.config))
    assert result["next_runs"]["db1-main"]["base"] == "2026-11-29T00:00:00+00:00"
    machine.boot()
    machine.lay(machine.request("systemd"))
    service = machine.unit("pgops-base@db1-main.service")
    assert "ExecStart=%s backup --kind base --config %s --wait 6h\n" % (machine.program, machine.config) in service
    assert "SyslogIdentifier=pgops-base\n" in service


@pytest.mark.parametrize(("written", "runs"), [("", None), ("0 5 1 * *", "0 5 1 * *")])
def test_the_calendar_of_base_backups_is_the_users(machine: Machine, written: str, runs: str | None) -> None:
    machine.config.write_text(
        '{"instance": "db1-main", "wal": {"enabled": true}, "schedule": {"base": "%s"}}' % written
    )
    machine.lay(machine.request("cron"))
    assert [line[:9] for line in machine.table() if "--kind base" in line] == ([runs] if runs else [])
