# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The tasks about a host itself: what lies on it beside the backups."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ._ansible_base import AnsibleModule, Result, Spec, end, expected, register_secret, secret_values, unexpected
from ._engine.core.errors import PgopsError, UsageError
from ._engine.core.redaction import Redactor
from ._engine.host.changes import Host, told
from ._engine.system.interrupts import interruptible
from ._engine.system.runner import Runner


def checked(spec: Spec, given: Any) -> dict[str, Any]:
    """Return options that another module would take, as Ansible would hand them to it. Raise UsageError for what it would refuse."""
    result = ArgumentSpecValidator(spec).validate(given if isinstance(given, dict) else {"": given})
    if result.error_messages:
        # Not the words themselves, which may quote a secret; names of options are none.
        unknown = sorted({str(name[-1] if isinstance(name, tuple) else name) for name in result.unsupported_parameters})
        where = " (%s)" % given["path"] if isinstance(given, dict) and isinstance(given.get("path"), str) else ""
        if unknown:
            raise UsageError(
                "Nothing is known of %s%s." % (", ".join(unknown), where), hint="Look for a slip in the names."
            )
        raise UsageError("The options%s are not what the module takes." % where)
    found: dict[str, Any] = result.validated_parameters
    return found


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
