# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m demo`: the main job from start to end, on this machine, without root."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from .job import Job, stop_kept
from .report import Report

BASE = Path(__file__).resolve().parents[1] / "build" / "demo"


def main() -> int:
    """Run the demo; 0 when every table came back as it was."""
    arguments = _arguments()
    BASE.mkdir(parents=True, exist_ok=True)
    if arguments.stop:
        return _stop()
    report = Report(BASE / "summary.json")
    report.path.unlink(missing_ok=True)
    _heed_signals(report)
    try:
        with Job(BASE, report, s3=arguments.s3, scale=arguments.scale) as job:
            try:
                kept = _run(job, report, keep=arguments.keep)
            finally:
                _set_signals(signal.SIG_IGN)  # a second Ctrl-C must not cut the clean-up short
    except KeyboardInterrupt:
        report.error = "interrupted"
        print("\ninterrupted; all that was started has ended")
        return 130
    finally:
        report.write()
    _conclude(report, kept)
    return 0 if report.error is None else 1


def _heed_signals(report: Report) -> None:
    """Have each signal by which somebody may end us raise KeyboardInterrupt, so that the clean-up runs."""

    def interrupt(*_unused: object) -> None:
        report.interrupted = True
        raise KeyboardInterrupt

    _set_signals(interrupt)


def _set_signals(handler: Any) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, handler)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument(
        "--keep",
        action="store_true",
        default=os.environ.get("KEEP", "") not in ("", "0"),
        help="leave the servers running at the end (the same as KEEP=1 in the environment)",
    )
    parser.add_argument("--stop", action="store_true", help="stop the servers that earlier runs left running")
    parser.add_argument("--s3", choices=("moto", "rclone"), default=os.environ.get("S3", "moto"), help="the S3 server")
    parser.add_argument("--scale", type=float, default=1.0, help="size of the databases; 1 is about 200 MB")
    return parser.parse_args()


def _run(job: Job, report: Report, *, keep: bool) -> str:
    """Run the steps and note the outcome; return what to say about servers that are left running."""
    try:
        job.run()
        report.error = f"{len(report.differences)} differences" if report.differences else None
    except KeyboardInterrupt:
        raise
    except Exception as error:  # noqa: BLE001 - whatever failed, the report says it
        print("failed")
        report.error = f"{type(error).__name__}: {error}"
    return job.keep() if keep else ""


def _conclude(report: Report, kept: str) -> None:
    print(f"\n{report.table()}\n")
    for note in report.notes:
        print(f"  note: {note}")
    for difference in report.differences[:20]:
        print(f"  {difference}")
    if report.error is None:
        print(f"Everything came back: {report.compared_tables} tables and all that belongs to them are as they were.")
    else:
        print(f"The demo FAILED: {report.error}\nAnsible's own output is in {BASE / 'ansible.log'}", file=sys.stderr)
    print(f"For programs: {report.path}")
    if kept:
        print(kept)


def _stop() -> int:
    """Stop kept servers and wait until nothing of them is left."""
    waiting = [mark.parent for mark in BASE.glob("run-*/keep")]
    print(f"stopping {stop_kept(BASE)} kept run(s)")
    deadline = time.monotonic() + 60
    while any(path.exists() for path in waiting) and time.monotonic() < deadline:
        time.sleep(0.2)
    left = [str(path) for path in waiting if path.exists()]
    if left:
        print(f"still there: {', '.join(left)}", file=sys.stderr)
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
