# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The tasks about a host itself: what lies on it beside the backups."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn, Optional

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.common.parameters import DEFAULT_TYPE_VALIDATORS

from ._ansible_base import AnsibleModule, Result, Spec, end, expected, register_secret, secret_values, unexpected
from ._ansible_variables import kind_of
from ._engine.core.errors import PgopsError, UsageError
from ._engine.core.redaction import Redactor
from ._engine.host.changes import Host, told
from ._engine.system.interrupts import interruptible
from ._engine.system.runner import Runner

_EXPECTED = {"bool": "true or false", "dict": "keys and values", "int": "a whole number", "list": "a list"}


def checked(
    spec: Spec, given: Any, what: str = "The options", names: Optional[Mapping[str, str]] = None
) -> dict[str, Any]:
    """Return options that another module would take, as Ansible would hand them to it.

    Raise UsageError that lists all that it would refuse of `what`; `names` has more telling names of options.
    """
    wrong = ["%s: %s" % (_named(keys, names or {}), text) for keys, text in _faults(spec, given)]
    if wrong:
        raise UsageError("\n".join(["%s cannot be so:" % what, *("  - %s" % line for line in wrong)]))
    result = ArgumentSpecValidator(copy.deepcopy(spec)).validate(given)  # it writes into defaults
    if result.error_messages:  # no words of Ansible's, which may quote a secret
        raise UsageError("%s cannot be so." % what, hint="Look for a slip in names and values.")
    found: dict[str, Any] = result.validated_parameters
    return found


def sound(spec: Spec, given: Any) -> Optional[dict[str, Any]]:
    """Return what checked() takes of the options, so that what is wrong with it can be told too; None when too little is left."""
    left = copy.deepcopy(given) if isinstance(given, dict) else {}
    for keys, _text in _faults(spec, left):
        inner = left
        for key in keys[:-1]:
            found = inner.get(key)
            inner = found if isinstance(found, dict) else {}
        inner.pop(keys[-1], None)
    return None if _faults(spec, left) else checked(spec, left)


def _named(keys: Sequence[Any], names: Mapping[str, str]) -> str:
    path = ".".join(str(key) for key in keys) or "all of it"
    return "%s (%s)" % (path, names[path]) if path in names else path


def _faults(spec: Spec, given: Any, path: tuple[Any, ...] = ()) -> list[tuple[tuple[Any, ...], str]]:
    """Return where in `given` is what the specification does not take, and why."""
    if not isinstance(given, Mapping):
        return [(path, "expected keys and values, found %s." % kind_of(given))]
    found = []
    for name in given:
        if name not in spec:
            near = difflib.get_close_matches(str(name), list(spec), n=1)
            found.append(((*path, name), "unknown.%s" % (" Did you mean %s?" % near[0] if near else "")))
    for name, described in spec.items():
        value = given.get(name)
        if value is not None:
            found += _faults_of(described, value, (*path, name))
        elif described.get("required"):
            found.append(((*path, name), "missing."))
    return found


def _faults_of(described: Mapping[str, Any], value: Any, path: tuple[Any, ...]) -> list[tuple[tuple[Any, ...], str]]:
    kind = described.get("type", "str")
    shown = "a secret" if described.get("no_log") else kind_of(value) if kind in ("dict", "list") else repr(value)
    inner = described.get("options")
    try:
        if inner is not None and not isinstance(value, (dict, list)):
            raise TypeError
        found = DEFAULT_TYPE_VALIDATORS[kind](value)
    except (TypeError, ValueError):
        return [(path, "expected %s, found %s." % (_EXPECTED.get(kind, "a text"), shown))]
    if "choices" in described and found not in described["choices"]:
        return [(path, "expected one of %s, found %s." % (", ".join(described["choices"]), shown))]
    if inner is None:
        return []
    if kind == "dict":
        return _faults(inner, found, path)
    return [fault for index, one in enumerate(found) for fault in _faults(inner, one, (*path, index))]


class HostTask:
    """One task that sees to what lies on the host beside the backups: no configuration, no run record."""

    def __init__(self, own: Spec, **others: Any) -> None:
        """Read the options `own`; `others` go to AnsibleModule."""
        self._spec = own
        self.module = AnsibleModule(argument_spec=own, supports_check_mode=True, **others)
        self.params: dict[str, Any] = self.module.params

    def run(
        self, work: Callable[[Host], Result], *, secrets: Iterable[str] = (), structure: Iterable[str] = ()
    ) -> NoReturn:
        """Call `work` with the host, and end the module with its result or with the error that it raised.

        `secrets` are those that stand where no option is marked as one. They are masked but in the keys of `structure`, see end().
        """
        found = [*secret_values(self.params, self._spec), *secrets]
        for secret in found:
            register_secret(secret)
        self.module.no_log_values.update(found)
        redactor = Redactor(found)
        host = Host(dry_run=self.module.check_mode, runner=Runner(redactor))
        said: Result = {}
        failed = True
        with interruptible():
            try:
                said = work(host)
                failed = False
            except PgopsError as raised:
                said = expected(raised, redactor)
            except OSError as raised:
                said = expected(told(raised), redactor)
            except KeyboardInterrupt:
                said = {"msg": "The run was interrupted.", "hint": "", "outcome": "interrupted", "exit_code": 1}
            except Exception as raised:  # noqa: BLE001 - whatever it is, its text may hold a secret
                said = unexpected(raised, redactor)
        said["run_warnings"] = list(host.warnings)
        if not self.module._diff:
            said.pop("diff", None)
        end(self.module, said, failed=failed, redactor=redactor, structure=structure)
