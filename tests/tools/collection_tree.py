# SPDX-License-Identifier: GPL-3.0-or-later
"""Copy the checkout to a path that Ansible's tools accept as a collection."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PLACE = Path("ansible_collections", "pgops", "backup")


def files(root: Path = ROOT) -> list[Path]:
    """List the files of the checkout that git does not ignore, relative to it."""
    # An empty repository of our own sees each file as untracked. So this also works in a tree that was
    # unpacked from an archive, and in one that belongs to another user, which git refuses to read.
    with tempfile.TemporaryDirectory(prefix="pgops-git-") as empty:
        subprocess.run(["git", "init", "--quiet", "--bare", empty], check=True)
        git = ["git", f"--git-dir={empty}", f"--work-tree={root}", "-c", "core.bare=false"]
        listed = subprocess.run(
            [*git, "ls-files", "-z", "--others", "--exclude-standard"], check=True, capture_output=True, cwd=root
        ).stdout.decode()
    return [Path(name) for name in listed.split("\0") if name]


def copy_to(parent: Path, root: Path = ROOT) -> Path:
    """Copy the files below `parent` and return the collection's folder there.

    ansible-test skips every target, and still succeeds, when it runs in a folder that git ignores: `parent`
    must be outside the checkout. Raises ValueError when it is not.
    """
    tree = parent.resolve() / PLACE
    if root in tree.parents:
        raise ValueError(f"{parent} is inside the checkout: ansible-test would skip every file there")
    for name in files(root):
        target = tree / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(root / name, target, follow_symlinks=False)
    return tree


def main() -> int:
    """Copy the tree to the folder that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parent", type=Path, help="a folder outside the checkout")
    sys.stdout.write(f"{copy_to(parser.parse_args().parent)}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
