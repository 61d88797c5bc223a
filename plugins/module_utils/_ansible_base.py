# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""What all tasks share: Ansible's module class, what is secret in its options, and errors as Ansible shows them."""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from ansible.module_utils.basic import AnsibleModule as _AnsibleModule
from ansible.module_utils.common.parameters import remove_values

from ._engine.core.commands import addressed
from ._engine.core.errors import CommandError, PgopsError
from ._engine.core.redaction import Redactor

try:
    # From ansible-core 2.22 on, which no longer looks for no_log values in results.
    from ansible.module_utils.secrets import register_secret
except ImportError:

    def register_secret(value: str) -> str:
        """Return `value`; the older ansible-core masks no_log values by itself."""
        return value


Spec = dict[str, dict[str, Any]]


class AnsibleModule(_AnsibleModule):
    """Ansible's own class, but for what it tells the journal.

    It looks for secrets in the text of a dict, where a quote or a backslash in them is escaped, and so finds none that has
    one. Of a dict, which may also hold secrets that do not belong there, we name the keys.
    """

    def _log_invocation(self) -> None:
        given = self.params
        shown = remove_values(given, self.no_log_values)
        self.params = {name: sorted(value) if isinstance(value, dict) else value for name, value in shown.items()}
        try:
            super()._log_invocation()
        finally:
            self.params = given


Result = dict[str, Any]


def end(module: Any, said: Result, *, failed: bool, redactor: Redactor, structure: Iterable[str] = ()) -> NoReturn:
    """End `module` with what was `said`, whose warnings it tells as well; secrets are masked but in the keys of `structure`.

    Plays are steered by these: names, numbers and addresses that hold no secret, and may well look like one, as an instance
    db1-main does where a key is called db1. Ansible itself would mask them too.
    """
    kept = {key: said[key] for key in structure if key in said}
    marked = getattr(module, "no_log_values", set())
    # The options are shown with a result, at -vvv.
    said = {**said, "invocation": {"module_args": module.params}}
    said = {**remove_values(redactor.data(said), marked), **kept}
    marked.clear()
    for warning in said["run_warnings"]:
        module.warn(warning)
    # Outside of `except`: fail_json would add the text of an exception in flight, unredacted.
    if failed:
        module.fail_json(**said)
    module.exit_json(**said)
    raise AssertionError("exit_json came back")  # never: it ends the process


def secret_values(params: Any, spec: Spec) -> list[str]:
    """Return the secrets among `params`, for what must be said before there is a configuration."""
    found: list[str] = []
    for name, described in spec.items():
        value = params.get(name)
        if described.get("no_log") and isinstance(value, str) and value:
            found.append(value)
        elif isinstance(value, Mapping):
            found += secret_values(value, described.get("options") or {})
    return found


def expected(error: PgopsError, redactor: Redactor, config_file: str = "") -> Result:
    """Return what fail_json is told of `error`, with its commands about `config_file`."""
    said = [error.message, error.hint] if error.hint else [error.message]
    failure: Result = {
        **redactor.data(error.details),
        "msg": addressed(redactor.text(("\n" if "\n" in error.message else " ").join(said)), config_file),
        "hint": addressed(redactor.text(error.hint), config_file),
        "outcome": error.outcome,
        "exit_code": error.exit_code,
    }
    if isinstance(error, CommandError):
        failure.update(stderr=redactor.text(error.stderr), rc=error.returncode)
    return failure


def unexpected(error: Exception, redactor: Redactor) -> Result:
    trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    return {
        "msg": redactor.text("Unexpected error: %s: %s" % (type(error).__name__, error)),
        "hint": "Please report this as a bug of the collection pgops.backup; -vvv shows where it happened.",
        "outcome": "failed",
        "exit_code": 1,
        "exception": redactor.text(trace),
    }


__all__ = ("AnsibleModule", "Result", "Spec", "end", "expected", "register_secret", "secret_values", "unexpected")
