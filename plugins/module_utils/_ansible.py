# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The one util that knows AnsibleModule: its options come from the engine's settings, its answers go to exit_json.

Of the object called `module` only these are used: params, check_mode, no_log_values, _diff, warn(), exit_json() and fail_json().
"""

from __future__ import annotations

import dataclasses
import os
import platform
import re
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Optional

from ._ansible_base import AnsibleModule, Result, Spec, end, expected, register_secret, secret_values, unexpected
from ._engine import config as configuration
from ._engine import runs
from ._engine.context import Context
from ._engine.core.errors import PgopsError, UsageError
from ._engine.core.redaction import Redactor
from ._engine.places.catalog import Catalog
from ._engine.settings import Assertion, Backup, Config, Postgres, Restore, Verify
from ._engine.system.interrupts import cancelling_queries, interruptible

Place = tuple[str, ...]

ALIASES = {
    "login_host": ["host"],
    "login_port": ["port"],
    "login_unix_socket": ["unix_socket"],
    "ca_cert": ["ssl_rootcert"],
}
# Where an option lies in the configuration. These are options of every module, so that one `module_defaults` for the
# action group serves all of them.
COMMON: Mapping[str, Place] = {
    "instance": ("instance",),
    **{field.name: ("postgres", field.name) for field in dataclasses.fields(Postgres)},
    "backup_dir": ("local", "path"),
    "retention": ("local", "retention"),
    "state_dir": ("state_dir",),
    "log_dir": ("log_dir",),
    "work_dir": ("work_dir",),
    "s3": ("s3",),
    "group": ("group",),
}
# The sections of the configuration that belong to one verb; as options, their keys keep their names.
SECTIONS: Mapping[str, type[Any]] = {"backup": Backup, "verify": Verify, "restore": Restore}

_RENAMED = "Options bear the names of the keys, but for backup_dir (local.path) and retention (local.retention)."
# Each of these, given as an option, makes void what the configuration file says of the other.
_EXCLUSIVE = (("database_url", "database_url_file"), ("login_password", "login_password_file"))
_LOOKS_SECRET = re.compile(r"pass(?!ive)|secret|token|key", re.IGNORECASE)


# --- options ----------------------------------------------------------------------------------------------------------


def bindings(*sections: str, **others: Place) -> dict[str, Place]:
    """Return where each option lies in the configuration: the common ones, those of `sections`, and `others`."""
    bound = dict(COMMON)
    for section in sections:
        bound.update({field.name: (section, field.name) for field in dataclasses.fields(SECTIONS[section])})
    return {**bound, **others}


def argument_spec(bound: Mapping[str, Place]) -> Spec:
    """Return the specification of `config` and the options in `bound`, made from the engine's settings.

    No option has a default here: what is not given must not hide what the configuration file says.
    """
    spec: Spec = {"config": {"type": "path"}}
    for name, place in bound.items():
        owner: type[Any] = Config
        for key in place[:-1]:
            owner = _section(typing.get_type_hints(owner)[key]) or owner
        field = next(f for f in dataclasses.fields(owner) if f.name == place[-1])
        spec[name] = _described(field, typing.get_type_hints(owner)[field.name])
        if name in ALIASES:
            spec[name]["aliases"] = ALIASES[name]
    return spec


def _described(field: Any, hint: Any) -> dict[str, Any]:
    """Return the specification of one option."""
    section = _section(hint)
    many = typing.get_origin(hint) is list
    if section is not None:
        hints = typing.get_type_hints(section)
        options = {inner.name: _described(inner, hints[inner.name]) for inner in dataclasses.fields(section)}
        if section is Assertion:
            options["database"]["required"] = options["sql"]["required"] = True
        return (
            {"type": "list", "elements": "dict", "options": options} if many else {"type": "dict", "options": options}
        )
    if many:
        return {"type": "list", "elements": "str"}
    if typing.get_origin(hint) is dict:
        return {"type": "dict"}
    plain = next((a for a in typing.get_args(hint) if a is not configuration.NONE), hint)
    described: dict[str, Any] = {"type": "path" if field.metadata["form"] == "path" else plain.__name__}
    choices = [choice for choice in field.metadata["choices"] if choice]
    if choices:
        described["choices"] = choices
    if field.metadata["secret"] or _LOOKS_SECRET.search(field.name):
        described["no_log"] = field.metadata["secret"]
    return described


def _section(hint: Any) -> Optional[type[Any]]:
    for candidate in (hint, *typing.get_args(hint)):
        if isinstance(candidate, type) and dataclasses.is_dataclass(candidate):
            return candidate
    return None


# --- configuration ----------------------------------------------------------------------------------------------------


def configure(
    params: Mapping[str, Any], bound: Mapping[str, Place], *, environ: Mapping[str, str], host: str
) -> Config:
    """Return the configuration that the options in `bound` make, laid over the file that the option `config` names.

    Raise UsageError that names every error.
    """
    base, source = {}, "What the options say"
    if params.get("config"):
        base = configuration.read(Path(params["config"]))
        source = "What the options and %s say" % params["config"]
    given: dict[str, Any] = {}
    for name, place in bound.items():
        if params.get(name) is not None:
            inner = given
            for key in place[:-1]:
                inner = inner.setdefault(key, {})
            inner[place[-1]] = _without_none(params[name])
    merged = configuration.merge(_without_rivals(base, params), given)
    try:
        return configuration.build(merged, environ=environ, host=host, source=source)
    except UsageError as error:
        raise UsageError(error.message, hint=_RENAMED) from None


def _without_none(value: Any) -> Any:
    """Return `value` without the suboptions that were not given, which Ansible fills with None."""
    if isinstance(value, Mapping):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_none(item) for item in value]
    return value


def _without_rivals(base: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` without what an option that was given takes the place of under another name."""
    postgres = base.get("postgres")
    if not isinstance(postgres, Mapping):
        return dict(base)
    gone = {rival for pair in _EXCLUSIVE for name, rival in (pair, pair[::-1]) if params.get(name) is not None}
    return {**base, "postgres": {key: value for key, value in postgres.items() if key not in gone}}


# --- the task ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class View:
    """How diff mode shows a verb: `look` says what there is; `predict` what there will be, from that and the plan."""

    look: Callable[[Context], Any]
    predict: Callable[[Any, Result], Any]


class Task:
    """One task of a playbook: the options of a module, and the way from them through a verb to the result."""

    def __init__(self, verb: str, bound: Mapping[str, Place], *, own: Optional[Spec] = None, **others: Any) -> None:
        """Read the options: `bound` belong to the configuration, `own` to the module; `others` go to AnsibleModule."""
        self.verb, self._bound = verb, bound
        self._spec = {**argument_spec(bound), **(own or {})}
        self.module = AnsibleModule(
            argument_spec=self._spec, mutually_exclusive=list(_EXCLUSIVE), supports_check_mode=True, **others
        )
        self.params: dict[str, Any] = self.module.params
        self.check_mode: bool = self.module.check_mode
        self.diff_mode: bool = self.module._diff
        self._own_secrets = secret_values(self.params, own or {})

    def run(
        self,
        work: Callable[[Context], Result],
        *,
        view: Optional[View] = None,
        fails: Callable[[Result], Optional[PgopsError]] = lambda _result: None,
        recorded: bool = True,
        structure: Sequence[str] = (),
    ) -> NoReturn:
        """Do `work` as a run of the verb and end the module with its result, or with what went wrong and what to do.

        `view` makes the key `diff` in diff mode. `fails` returns the error that a result amounts to, if it does; the
        result then stays beside it. What was left to another node (`skipped`) is to Ansible a task that was skipped. A
        verb that is not `recorded` leaves no run record. Ansible keeps the key
        `warnings` for itself and shows what is in it; the run's own warnings stay in `run_warnings`. Secrets are masked but in the
        keys of `structure`, see end().
        """
        kept: Result = {}

        def done(context: Context) -> Result:
            result = work(context)
            kept.update((key, result[key]) for key in structure if key in result)
            return result

        redactor = Redactor(secret_values(self.params, self._spec))
        context: Optional[Context] = None
        result: Result = {}
        failure: Result = {}
        with interruptible():
            try:
                context = self._context()
                redactor = context.redactor
                with cancelling_queries():
                    result = {**self._perform(context, done, view, recorded), **kept}
                error = fails(result)
                if error is not None:
                    failure = {**result, **expected(error, redactor, context.config_file)}
            except PgopsError as raised:
                failure = expected(raised, redactor, context.config_file if context else "")
            except KeyboardInterrupt:
                failure = {"msg": "The run was interrupted.", "hint": "", "outcome": "interrupted", "exit_code": 1}
            except Exception as raised:  # noqa: BLE001 - whatever it is, its text may hold a secret
                failure = unexpected(raised, redactor)
        said = failure or result
        said.pop("warnings", None)
        said.setdefault("verb", self.verb)
        if said.get("skipped"):
            # To Ansible, a task that was skipped is one with true here, and the reason beside it.
            said["skip_reason"], said["skipped"] = said["skipped"], True
        said["run_warnings"] = list(context.warnings) if context else []
        # Outside of `except`: fail_json would add the text of an exception in flight, unredacted.
        end(self.module, said, failed=bool(failure), redactor=redactor, structure=structure)

    def _context(self) -> Context:
        host = platform.node()
        config = configure(self.params, self._bound, environ=os.environ, host=host)
        secrets = [*configuration.secrets_of(config), *self._own_secrets]
        for secret in secrets:
            register_secret(secret)
        file = self.params.get("config")
        context = Context(config, host, config_file=os.path.abspath(file) if file else "")
        context.runner.redactor = Redactor(secrets)
        return context

    def _perform(
        self, context: Context, work: Callable[[Context], Result], view: Optional[View], recorded: bool
    ) -> Result:
        shown = view if self.module._diff else None
        before = _look(context, shown)
        result = runs.perform(context, self.verb, work, dry_run=self.check_mode or not recorded)
        result["dry_run"] = self.check_mode
        if shown is not None and before is not None:
            planned = self.check_mode and not result.get("skipped")
            after = {"is": shown.predict(before["is"], result)} if planned else _look(context, shown)
            if after is not None:
                result["diff"] = context.redactor.data({"before": before["is"], "after": after["is"]})
        return result


def _look(context: Context, view: Optional[View]) -> Optional[dict[str, Any]]:
    """Return {"is": what there is}, or None where nobody asks or nobody can tell."""
    if view is None:
        return None
    try:
        return {"is": view.look(context)}
    except (PgopsError, OSError) as error:
        # The verb itself tells what is wrong, if that is wrong for it too.
        context.warn("There is no diff: %s" % error)
        return None


# --- what diff mode shows ---------------------------------------------------------------------------------------------


def sets_of(context: Context, places: Sequence[str]) -> dict[str, list[str]]:
    """Return the ids of the sets in each of `places`, the newest first. Raise PgopsError if one cannot be read."""
    return {name: Catalog(context.place(name)).ids() for name in places}


def without(held: Mapping[str, Sequence[str]], removed: Mapping[str, Iterable[str]]) -> dict[str, list[str]]:
    """Return `held` (place to set ids) without what is `removed` from each place."""
    return {name: [s for s in ids if s not in set(removed.get(name, ()))] for name, ids in held.items()}


__all__ = (
    "ALIASES",
    "COMMON",
    "SECTIONS",
    "Spec",
    "Task",
    "View",
    "argument_spec",
    "bindings",
    "configure",
    "sets_of",
    "without",
)
