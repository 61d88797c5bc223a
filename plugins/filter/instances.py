# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, pgops contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""From variables to the instances of a host: what each one's configuration says, where it lies and when its jobs run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, Callable, Optional

from ansible.errors import AnsibleFilterError

from ansible_collections.pgops.backup.plugins.module_utils._ansible_variables import QUESTIONS, kind_of, unasked
from ansible_collections.pgops.backup.plugins.module_utils._engine.config import merge
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import UsageError
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.naming import check_instance
from ansible_collections.pgops.backup.plugins.module_utils._engine.settings import Config, base_calendar

DOCUMENTATION = r"""
name: instances
short_description: Lay the variables of a host out as one configuration for each of its instances
version_added: 0.1.0
author: pgops contributors (@pgops)
description:
  - Merges the sections of the configuration that all instances share with what each instance says otherwise.
  - Nothing is checked but the names. M(pgops.backup.pgops_config) checks the content, on the host and all of it at once. Where
    a value cannot be what it has to be, this filter goes on with the default.
positional: _input
options:
  _input:
    description:
      - The instances of the host. Each has a O(_input[].name), sections and keys of the configuration that differ from
        O(sections), and RV(_value[].secrets). A section or key that is V(null) is left out for that instance.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the instance, unique in a bucket.
        type: str
        required: true
  sections:
    description: The sections and keys of the configuration that hold for every instance.
    type: dict
    default: {}
  secrets:
    description: The secrets that hold for every instance, as M(pgops.backup.pgops_config) takes them.
    type: dict
    default: {}
  directory:
    description: Where the configurations lie on the host.
    type: path
    default: /etc/pgops
  other:
    description: More sections and keys that hold for every instance, laid over O(sections).
    type: dict
    default: {}
  require:
    description:
      - What must be so before the host counts as protected, to be checked with the names; the questions of
        P(pgops.backup.assessment#filter), all of them when it is not given.
    type: raw
  lenient:
    description:
      - Whether wrong names are not refused, but told in RV(_value[].errors), so that all that is wrong can be told at once. Where no
        instance is named at all, there is one without a name then.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: See what the configuration of each instance will say
  ansible.builtin.debug:
    msg: >-
      {{ [{'name': 'db1-main'}, {'name': 'db1-old', 'postgres': {'login_port': 5433}}]
         | pgops.backup.instances(sections={'backup': {'jobs': 2}})
         | map(attribute='content') }}
"""

RETURN = r"""
_value:
  description: One dictionary for each instance.
  type: list
  elements: dict
  contains:
    name:
      description: Name of the instance.
      type: str
    path:
      description: Path of its configuration on the host, C(config.yml) when it is the only one.
      type: path
    content:
      description: What the configuration says, without secrets.
      type: dict
    secrets:
      description: The secrets of the instance. Keep them out of loops, whose items Ansible shows.
      type: dict
    configuration:
      description: C(path), C(content) and C(secrets), as M(pgops.backup.pgops_config) takes them.
      type: dict
    scheduled:
      description: The instance as M(pgops.backup.pgops_schedule) takes it in its O(pgops.backup.pgops_schedule#module:instances).
      type: dict
    timezone:
      description: The time zone of the jobs; empty for the host's.
      type: str
    random_delay:
      description: By how much the jobs are spread.
      type: str
    wait:
      description: How long a job waits for another one.
      type: str
    archives:
      description: Whether its server archives its WAL, by C(wal.enabled).
      type: bool
    first:
      description: What protects it at first, of V(backup), V(base), V(sync) and V(verify), in that order.
      type: list
      elements: str
    apprise:
      description: Whether its alerts go by Apprise, so that the host needs that package.
      type: bool
    errors:
      description: What is wrong with the names of the instances, which no configuration can tell; with O(lenient).
      type: list
      elements: str
    log_dir:
      description: Where the instance logs; empty for nowhere.
      type: path
    state_dirs:
      description: The directories of run records that may be removed with the instance. None when backups lie below them.
      type: list
      elements: path
    port:
      description: The port of a server on the host itself; V(null) when the connection goes elsewhere or cannot be told.
      type: int
"""

VERBS = ("backup", "base", "sync", "verify", "prune", "alert")
# The secrets by which alone a channel for alerts is on.
_CHANNELS = ("slack_webhook_url", "pagerduty_routing_key", "sentry_dsn", "webhook_url", "heartbeat_url", "apprise_urls")
_DEFAULTS = dataclasses.asdict(Config())
_HERE = ("", "localhost", "127.0.0.1", "::1")


def instances(
    given: Any,
    sections: Optional[Mapping[str, Any]] = None,
    secrets: Any = None,
    directory: str = "/etc/pgops",
    other: Any = None,
    lenient: bool = False,
    require: Any = QUESTIONS,
) -> list[dict[str, Any]]:
    """Return what the jobs and the configuration of each instance need. Raise AnsibleFilterError if names are missing or twice."""
    errors = _wrong(given) + unasked(require)
    errors += [
        "%s: expected keys and values, found %s." % (name, kind_of(value))
        for name, value in (("pgops_other", other), ("pgops_secrets", secrets))
        if value and not isinstance(value, Mapping)
    ]
    if errors and not lenient:
        raise AnsibleFilterError(" ".join(errors))
    # As everywhere: a section of pgops_other takes the place of the other one, whole.
    shared = {**(sections or {}), **(other if isinstance(other, Mapping) else {})}
    several = _is_list(given) and len(given) > 1
    known = [_named(one) for one in given if isinstance(one, Mapping)] if _is_list(given) else []
    return [
        {
            **_instance(
                one,
                shared,
                secrets if isinstance(secrets, Mapping) else {},
                "%s/%s.yml" % (directory, one["name"] or "config" if several else "config"),
            ),
            "errors": errors,
        }
        for one in known or [{"name": ""}]
    ]


def _is_list(given: Any) -> bool:
    return isinstance(given, Sequence) and not isinstance(given, str)


def _named(one: Mapping[str, Any]) -> dict[str, Any]:
    """Return the instance with a name that is a text, empty where it has none."""
    name = one.get("name")
    return {**one, "name": name if isinstance(name, str) else ""}


def _wrong(given: Any) -> list[str]:
    """Return what is wrong with the instances that no configuration can tell: their names, and what is no instance at all."""
    if not _is_list(given) or not given:
        return ["pgops_instances: expected a list of instances, each with a name, found %s." % kind_of(given)]
    errors = []
    names = []
    for index, one in enumerate(given):
        if not isinstance(one, Mapping):
            errors.append("pgops_instances[%d]: expected keys and values, found %s." % (index, kind_of(one)))
            continue
        if one.get("secrets") and not isinstance(one["secrets"], Mapping):
            errors.append(
                "pgops_instances[%d].secrets: expected keys and values, found %s." % (index, kind_of(one["secrets"]))
            )
        names.append(_named(one)["name"])
        if not names[-1]:
            found = "its keys are %s" % ", ".join(str(key) for key in one) if one else "it is empty"
            errors.append(
                "pgops_instances[%d]: it needs a name, as in [{name: db1-main}]; %s." % (index, found)
                if one.get("name") in (None, "")
                else "pgops_instances[%d].name: expected a text, found %s." % (index, kind_of(one["name"]))
            )
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        errors.append(
            "pgops_instances: instances need names of their own; more than one is called %s." % ", ".join(twice)
        )
    if len(names) > 1 and "config" in names:
        errors.append(
            "pgops_instances: an instance cannot be called config beside others: its file would look like the only one."
        )
    return errors


def _instance(
    one: Mapping[str, Any], sections: Mapping[str, Any], secrets: Mapping[str, Any], path: str
) -> dict[str, Any]:
    own = {key: value for key, value in one.items() if key not in ("name", "secrets")}
    content = {key: value for key, value in merge(sections, own).items() if value is not None and value != {}}
    content["instance"] = one["name"] or None
    schedule = _effective(content, "schedule")
    jobs = {verb: schedule[verb] for verb in VERBS}
    archives = _effective(content, "wal")["enabled"] in (True, "true", "yes", "on", 1)
    jobs["base"] = base_calendar(schedule["base"], archived=archives)
    if not content.get("s3"):
        jobs["sync"] = ""
    own_secrets = one.get("secrets")
    kept = {
        key: value
        for key, value in merge(secrets, own_secrets if isinstance(own_secrets, Mapping) else {}).items()
        if value
    }
    if not content.get("alerts") and not any(name in kept for name in _CHANNELS):
        jobs["alert"] = ""
    return {
        "name": one["name"],
        "path": path,
        "content": content,
        "secrets": kept,
        "configuration": {"path": path, "content": content, "secrets": kept},
        "scheduled": {"name": one["name"], "config": path, "jobs": jobs, "paths": _paths(content)},
        "timezone": schedule["timezone"],
        "random_delay": schedule["random_delay"],
        "wait": schedule["wait"],
        "archives": archives,
        "first": ["backup", *["base"] * bool(jobs["base"]), *["sync"] * bool(content.get("s3")), "verify"],
        "apprise": bool(kept.get("apprise_urls") or _speaks_apprise(content)),
        "log_dir": _scalar(content, "log_dir", _DEFAULTS),
        "state_dirs": _state_dirs(content, one["name"]),
        "port": _port(content, kept),
    }


def _effective(content: Mapping[str, Any], section: str) -> dict[str, Any]:
    """Return the plain keys of a section with the engine's defaults for what `content` does not say, or says as nothing can be."""
    said = content.get(section)
    return {
        key: _scalar(said, key, _DEFAULTS[section]) if isinstance(said, Mapping) else default
        for key, default in _DEFAULTS[section].items()
    }


def _scalar(said: Mapping[str, Any], key: str, defaults: Mapping[str, Any]) -> Any:
    """Return a text as the schema has it, where it may be a number; what is no text or number is left to the schema to tell."""
    value, default = said.get(key), defaults[key]
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return value if isinstance(default, bool) and isinstance(value, bool) else default
    return str(value) if isinstance(default, str) else value


def _speaks_apprise(content: Mapping[str, Any]) -> bool:
    alerts = content.get("alerts")
    section = alerts.get("apprise") if isinstance(alerts, Mapping) else None
    return isinstance(section, Mapping) and bool(section.get("urls_file") or section.get("urls"))


def _paths(content: Mapping[str, Any]) -> list[str]:
    paths = [_effective(content, "local")["path"]]
    paths += [_scalar(content, key, _DEFAULTS) for key in ("state_dir", "log_dir", "work_dir")]
    paths.append(_effective(content, "metrics")["textfile_directory"])
    return [path for path in dict.fromkeys(paths) if path]


def _state_dirs(content: Mapping[str, Any], name: str) -> list[str]:
    """Return the instance's own directory, and the one of all instances where it is the usual one and so ours alone."""
    state_dir = _scalar(content, "state_dir", _DEFAULTS)
    try:
        own = ["%s/%s" % (state_dir, check_instance(name))]
    except UsageError:  # such as none, or .., which would be a directory of others
        own = []
    candidates = own + [state_dir] * (state_dir == _DEFAULTS["state_dir"])
    backups = PurePosixPath(_effective(content, "local")["path"])
    return [path for path in candidates if not backups.is_relative_to(path)]


def _port(content: Mapping[str, Any], secrets: Mapping[str, Any]) -> Optional[int]:
    postgres = _effective(content, "postgres")
    url = postgres["database_url"] or postgres["database_url_file"] or secrets.get("database_url")
    if url or postgres["login_host"] not in _HERE:
        return None
    try:
        return int(postgres["login_port"] or 5432)
    except ValueError:
        return None


class FilterModule:
    """The filter of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return it by its name."""
        return {"instances": instances}
