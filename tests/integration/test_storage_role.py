# SPDX-License-Identifier: GPL-3.0-or-later
"""The role storage for two hosts that share a bucket: check, converge, the second run; boto3 looks at the result."""

from __future__ import annotations

import json
import os
import re
import sys
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from demo.servers import MotoS3
from tests.integration.conftest import ROOT
from tests.integration.playing import COLLECTIONS, played
from tests.tools import amazon

ROLE = ROOT / "roles" / "storage"
ENGINE = ROOT / "plugins" / "module_utils" / "_engine"
RECAP = re.compile(r"^(\S+)\s+: ok=\d+\s+changed=(\d+)\s+unreachable=0\s+failed=(\d+)", re.MULTILINE)

OF_OTHERS = {"Key": "cost", "Value": "somebody else's"}


def _leave(host: str) -> list[dict[str, Any]]:
    """Return tasks as the playbook site has them, by which a host that lacks nothing leaves."""
    return [
        {"ansible.builtin.set_fact": {"__storage_shares": "{{ __storage_shared }}"}},
        {"ansible.builtin.import_role": {"name": "pgops.backup.storage", "tasks_from": "sharing"}},
        {"ansible.builtin.meta": "end_host", "when": "inventory_hostname == '%s'" % host},
    ]


@dataclass(frozen=True)
class Played:
    """What Ansible said, and per host what changed and what failed."""

    output: str

    @property
    def changed(self) -> dict[str, int]:
        return {host: int(changed) for host, changed, _failed in RECAP.findall(self.output)}

    @property
    def failed(self) -> dict[str, int]:
        return {host: int(failed) for host, _changed, failed in RECAP.findall(self.output)}


@dataclass
class Controller:
    """Ansible with this collection, two hosts on this machine, and a bucket of its own."""

    root: Path
    store: MotoS3
    bucket: str = field(default_factory=lambda: "role-" + uuid.uuid4().hex[:12])
    collections: list[Path] = field(default_factory=list)

    def __post_init__(self) -> None:
        local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
        hosts = {"db1": {"pgops_instances": [{"name": "db1-main"}]}, "db2": {}}
        inventory = {"databases": {"hosts": hosts, "vars": local}}
        (self.root / "inventory.yml").write_text(yaml.safe_dump(inventory))
        self.variables: dict[str, Any] = {
            "pgops_s3": {
                "bucket": self.bucket,
                "endpoint_url": self.store.endpoint_url,
                "addressing_style": "path",
                "credentials_file": "/etc/pgops/only-on-the-host",
            },
            "pgops_secrets": {"s3_access_key": self.store.access_key, "s3_secret_key": self.store.secret_key},
            "storage_program": str(self.root / "bin" / "pgops"),
            "ansible_become": False,
        }

    def play(self, *flags: str, done: str = "", **variables: Any) -> Played:
        """Apply the role to both hosts, but to the one that is `done`, which only tells before what it shares."""
        play = {
            "hosts": "databases",
            "gather_facts": False,
            "become": True,
            # These hold on the hosts, and the module of the role runs elsewhere.
            "module_defaults": {
                "group/pgops.backup.pgops": {"config": "/etc/pgops/config.yml", "instance": "db1-main"}
            },
            "pre_tasks": _leave(done) if done else [],
            "roles": [{"role": "pgops.backup.storage"}],
        }
        book, told = self.root / "play.yml", self.root / "variables.json"
        book.write_text(yaml.safe_dump([play]))
        told.write_text(json.dumps({**self.variables, **variables}))
        program = Path(sys.executable).with_name("ansible-playbook")
        inventory = str(self.root / "inventory.yml")
        collections = os.pathsep.join(map(str, [COLLECTIONS, *self.collections]))
        words = [str(program), "-i", inventory, "-e", "@%s" % told, *flags, str(book)]
        done = played(words, self.root, ANSIBLE_COLLECTIONS_PATH=collections)
        output = done.stdout + done.stderr
        for secret in self.variables["pgops_secrets"].values():
            assert secret not in output
        assert (done.returncode == 0) is (set(Played(output).failed.values()) == {0}), output
        return Played(output)

    def install(self, **s3: Any) -> None:
        """Lay down the program, and a configuration of the host for it."""
        folder = self.root / "bin"
        folder.mkdir()
        (folder / "engine").mkdir()
        (folder / "engine" / "pgops").symlink_to(ENGINE)
        config = {
            "instance": "db1-main",
            "local": {"path": str(self.root / "backups")},
            "state_dir": str(self.root / "state"),
            "log_dir": "",
            "s3": {
                "bucket": self.bucket,
                "endpoint_url": self.store.endpoint_url,
                "addressing_style": "path",
                "access_key": self.store.access_key,
                "secret_key": self.store.secret_key,
                **s3,
            },
        }
        path = self.root / "config.json"
        path.write_text(json.dumps(config))
        path.chmod(0o600)
        script = '#!/bin/sh\nexport PYTHONPATH=%s\nexec %s -m pgops "$@"\n' % (folder / "engine", sys.executable)
        (folder / "pgops").write_text(script)
        (folder / "pgops").chmod(0o755)
        # Where it lies on a host is fixed; here it is not to touch /etc.
        self.variables["__storage_configs"] = [str(path)]

    def buckets(self) -> set[str]:
        return {bucket["Name"] for bucket in self.store.client().list_buckets()["Buckets"]}


@pytest.fixture
def controller(tmp_path: Path, store: MotoS3) -> Controller:
    return Controller(tmp_path, store)


def test_check_converge_and_the_second_run(controller: Controller) -> None:
    lock = {"storage_object_lock": {"mode": "GOVERNANCE", "days": 2}, "storage_tags": {"team": "data"}}
    checked = controller.play("--check", "--diff", "-vvv", **lock)
    assert checked.changed == {"db1": 1, "db2": 0}, "the first sees to the bucket for both"
    assert controller.bucket not in controller.buckets()
    made = controller.play("--diff", "-vvv", **lock)
    assert made.changed == {"db1": 1, "db2": 0}
    raw, name = controller.store.client(), controller.bucket
    assert raw.get_bucket_versioning(Bucket=name)["Status"] == "Enabled"
    (rule,) = raw.get_bucket_lifecycle_configuration(Bucket=name)["Rules"]
    assert rule["NoncurrentVersionExpiration"] == {"NoncurrentDays": 30}
    assert rule["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 7}
    held = raw.get_object_lock_configuration(Bucket=name)["ObjectLockConfiguration"]["Rule"]["DefaultRetention"]
    assert (held["Mode"], held["Days"]) == ("GOVERNANCE", 2)
    assert raw.get_bucket_tagging(Bucket=name)["TagSet"] == [{"Key": "team", "Value": "data"}]
    assert set(raw.get_public_access_block(Bucket=name)["PublicAccessBlockConfiguration"].values()) == {True}
    # The policies are shown, to each host its own.
    for host in ("db1", "db2"):
        assert "arn:aws:s3:::%s/database-backups/%s-main/*" % (name, host) in made.output
    assert "Apply the role agent" in made.output
    again = controller.play("--diff", storage_show_policies=False, **lock)
    assert again.changed == {"db1": 0, "db2": 0}
    assert "arn:aws:s3" not in again.output


def test_the_bucket_by_amazons_own_collection(controller: Controller) -> None:
    controller.collections.append(amazon.collection())
    wanted: dict[str, Any] = {
        "storage_by": "amazon.aws",
        "storage_object_lock": {"mode": "GOVERNANCE", "days": 2},
        "storage_tags": {"team": "data"},
    }
    raw, name = controller.store.client(), controller.bucket
    # That collection has no check mode; ours predicts all the same.
    checked = controller.play("--check", "--diff", "--limit", "db1", **wanted)
    assert checked.changed == {"db1": 1}
    assert name not in controller.buckets()
    made = controller.play("-v", "--limit", "db1", **wanted)
    by_amazon, ours = made.output.split("Amazon | Make the bucket]")[1].split("Bucket | Make it fit for backups]")
    assert by_amazon.split("\n")[1].startswith("changed: [db1 -> localhost]")
    assert raw.get_bucket_versioning(Bucket=name)["Status"] == "Enabled"
    assert set(raw.get_public_access_block(Bucket=name)["PublicAccessBlockConfiguration"].values()) == {True}
    assert raw.get_bucket_tagging(Bucket=name)["TagSet"] == [{"Key": "team", "Value": "data"}]
    # The rest is ours: the days of the lock, the life cycle, the policies.
    assert ours.split("\n")[1].startswith("changed: [db1 -> localhost]")
    held = raw.get_object_lock_configuration(Bucket=name)["ObjectLockConfiguration"]["Rule"]["DefaultRetention"]
    assert (held["Mode"], held["Days"]) == ("GOVERNANCE", 2)
    (rule,) = raw.get_bucket_lifecycle_configuration(Bucket=name)["Rules"]
    assert rule["NoncurrentVersionExpiration"] == {"NoncurrentDays": 30}
    assert rule["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 7}
    assert "arn:aws:s3:::%s/database-backups/db1-main/*" % name in ours
    raw.put_bucket_tagging(Bucket=name, Tagging={"TagSet": [*raw.get_bucket_tagging(Bucket=name)["TagSet"], OF_OTHERS]})
    assert controller.play("--limit", "db1", **wanted).changed == {"db1": 0}
    assert OF_OTHERS in raw.get_bucket_tagging(Bucket=name)["TagSet"]


def test_hosts_that_want_other_things_see_to_them_by_themselves(controller: Controller) -> None:
    # Another prefix has a life cycle of its own in the same bucket.
    other = {**controller.variables["pgops_s3"], "prefix": "others"}
    usual = controller.variables["pgops_s3"]
    wanted = "{{ %s if inventory_hostname == 'db2' else %s }}" % (json.dumps(other), json.dumps(usual))
    made = controller.play("--diff", pgops_s3=wanted)
    assert made.changed == {"db1": 1, "db2": 1}
    rules = controller.store.client().get_bucket_lifecycle_configuration(Bucket=controller.bucket)["Rules"]
    assert {rule["Filter"]["Prefix"] for rule in rules} == {"database-backups/", "others/"}
    assert controller.play(pgops_s3=wanted).changed == {"db1": 0, "db2": 0}


def test_a_host_that_is_done_with_the_play_is_known_to_the_one_that_sees_to_the_bucket(controller: Controller) -> None:
    for done, other in (("db2", "db1"), ("db1", "db2")):
        checked = controller.play("--check", done=done)
        assert checked.changed == {done: 0, other: 1}, "the first of those that are left"
        for host in (done, other):
            assert "arn:aws:s3:::%s/database-backups/%s-main/*" % (controller.bucket, host) in checked.output


def test_the_host_probes_the_bucket_and_remembers(controller: Controller) -> None:
    controller.install()
    checked = controller.play("--check", "--limit", "db1")
    assert checked.changed == {"db1": 1}
    assert not (controller.root / "state").exists()
    assert controller.play("--limit", "db1").changed == {"db1": 2}
    (remembered,) = (controller.root / "state").rglob("s3-capabilities.json")
    assert controller.bucket in remembered.read_text()
    assert controller.play("--limit", "db1").changed == {"db1": 0}
    remembered.unlink()
    assert controller.play("--limit", "db1", storage_proven=True).changed == {"db1": 0}
    assert not remembered.exists()


def test_a_host_that_cannot_use_the_bucket_is_told_of(controller: Controller) -> None:
    controller.install(bucket="another-" + controller.bucket)
    played = controller.play("--limit", "db1")
    assert played.failed == {"db1": 1}
    assert "The bucket another-%s does not exist" % controller.bucket in played.output
    assert "correct s3.bucket" in played.output


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"pgops_s3": {}}, "Set pgops_s3.bucket"),
        ({"pgops_instances": [{"name": "a", "s3": {"bucket": "own"}}, {"name": "b"}]}, "sets s3.bucket of its own"),
        ({"storage_by": "hand"}, "value of storage_by must be one of: pgops, amazon.aws"),
        ({"storage_lifecycle": {"archive": 3}}, "archive"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_touched(
    variables: dict[str, Any], words: str, controller: Controller
) -> None:
    played = controller.play("-vvv", **variables)
    assert set(played.failed.values()) == {1}
    assert words in re.sub(r"\s+", " ", played.output)
    assert controller.bucket not in controller.buckets()


def test_instances_without_a_copy_get_no_policy(controller: Controller) -> None:
    instances = [{"name": "kept", "s3": None}, {"name": "sent", "s3": {"bandwidth_limit": "1MiB"}}]
    # Keys that are part of what the policies name do not mask it.
    keys = {"s3_access_key": "database", "s3_secret_key": "sent"}
    played = controller.play("--check", "--limit", "db1", pgops_instances=instances, pgops_secrets=keys)
    assert "arn:aws:s3:::%s/database-backups/sent/*" % controller.bucket in played.output
    assert "kept" not in played.output
