# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The sections of the metrics and of the operator's checklist."""

from __future__ import annotations

from dataclasses import dataclass, field

from .option import option


@dataclass(frozen=True)
class Metrics:
    """Numbers for Prometheus."""

    textfile_directory: str = option(
        "",
        "Directory of node_exporter's textfile collector; the numbers are written there after each run. None are when empty.",
        form="path",
        example="/var/lib/prometheus/node-exporter",
    )


@dataclass(frozen=True)
class ChecklistLine:
    """One line of a checklist."""

    id: str = option("", "Its name, which begins with the stage that it belongs to.", example="monthly.invoices")
    who: str = option("", "Who sees to it.", example="accounting")
    text: str = option("", "What must be so.", example="The invoices of a test restore were looked at")
    proof: str = option(
        "", "What ticks it by itself; docs/checklists.md names all. A person does when empty.", example="restored"
    )
    todo: str = option("", "What to do when it is not so; a usual advice when empty.", example="Ask accounting.")
    signable: bool = option(False, "Whether a person may tick it as well, where something else does.")


@dataclass(frozen=True)
class Checklist:
    """Lines of your own for pgops checklist, behind those of their stages."""

    lines: list[ChecklistLine] = field(default_factory=list, metadata={"text": "The lines."})
    files: list[str] = option(
        [],
        "Files with more of them, as `lines:` in the same form. They are read by the checklist and by pgops config --check.",
        example=["/etc/pgops/checklist.yml"],
    )


__all__ = ("Checklist", "ChecklistLine", "Metrics")
