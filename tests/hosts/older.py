# SPDX-License-Identifier: GPL-3.0-or-later
"""older.py FOLDER: lay this collection into FOLDER/ansible_collections under the number of an older version."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

from tests.tools import collection_tree

VERSION = "0.0.9"
# A module of the engine that later versions no longer have.
GONE = "plugins/module_utils/_engine/core/of_older_versions.py"


def lay(folder: Path) -> None:
    """Copy the collection and make it older."""
    shutil.rmtree(folder, ignore_errors=True)
    tree = collection_tree.copy_to(folder)
    for name in ("galaxy.yml", "plugins/module_utils/_engine/__init__.py"):
        path = tree / name
        text, times = re.subn(r'(?m)^(version: |__version__ = ")[0-9.]+', rf"\g<1>{VERSION}", path.read_text())
        if times != 1:
            raise SystemExit(f"{path} has no version to replace")
        path.write_text(text)
    (tree / GONE).write_text("# Of an older version.\nfrom __future__ import annotations\n")
    main = tree / "plugins/module_utils/_engine/cli/main.py"
    main.write_text(
        main.read_text() + "\nfrom ..core import of_older_versions as _of_older_versions  # noqa: F401, E402\n"
    )


if __name__ == "__main__":
    lay(Path(sys.argv[1]))
