# SPDX-License-Identifier: GPL-3.0-or-later
"""From what pgops said of each host to what is to be done, and to the lines that a person reads last."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ansible_collections.pgops.backup.plugins.filter.assessment import assessment
from ansible_collections.pgops.backup.plugins.filter.summary import summary

GOOD = {"backup": "ok", "off-site copy": "ok", "verification": "ok", "disk": "ok"}


def result(severities: dict[str, str], places: tuple[str, ...] = ("local", "s3")) -> dict[str, Any]:
    said = {
        "findings": [{"check": c, "severity": s, "text": "%s is %s." % (c, s)} for c, s in severities.items()],
        "places": [{"place": place} for place in places],
        "safe": ["local: a set."],
    }
    return {"item": {"key": "db1-main"}, "stdout": json.dumps(said), "rc": 0}


def judged(severities: dict[str, str], **more: Any) -> dict[str, Any]:
    places = more.pop("places", ("local", "s3"))
    return assessment([result({**GOOD, **severities}, places)], **more)[0]


def test_all_is_well() -> None:
    found = judged({})
    assert found["protected"] and found["needs"] == []
    assert found["lines"] == ["backup is ok.", "off-site copy is ok.", "verification is ok."]


@pytest.mark.parametrize(
    ("severities", "needs"),
    [
        ({"backup": "critical"}, ["backup", "sync", "verify"]),
        ({"off-site copy": "critical"}, ["sync"]),
        ({"off-site place": "critical"}, ["sync"]),
        ({"verification": "warning"}, ["verify"]),
        ({"base backup": "critical"}, ["base", "sync", "verify"]),
        ({"off-site base backup": "critical"}, ["sync"]),
        ({"backup": "critical", "base backup": "critical"}, ["backup", "base", "sync", "verify"]),
        ({"off-site copy": "warning", "verification": "warning"}, ["sync", "verify"]),
    ],
)
def test_what_is_wrong_says_what_helps(severities: dict[str, str], needs: list[str]) -> None:
    found = judged(severities)
    assert not found["protected"]
    assert found["needs"] == needs
    assert found["lines"] == ["%s is %s." % pair for pair in severities.items()]


def test_without_s3_nothing_is_copied_and_the_host_counts_as_protected_with_a_remark() -> None:
    found = judged({"no off-site place": "warning"}, places=("local",))
    assert found["protected"]
    assert found["lines"] == ["no off-site place is warning."]
    assert judged({"backup": "critical"}, places=("local",))["needs"] == ["backup", "verify"]


def test_what_else_is_wrong_is_told_only() -> None:
    found = judged({"disk": "warning", "run of prune": "warning"})
    assert found["protected"] and found["needs"] == []
    assert found["lines"] == ["disk is warning.", "run of prune is warning."]


def test_only_the_required_questions_count() -> None:
    assert judged({"verification": "warning"}, require=["backup", "off-site copy"])["protected"]
    assert not judged({"off-site place": "critical"}, require=["off-site copy"])["protected"]


@pytest.mark.parametrize(
    ("found", "protected"),
    [
        ({"wal archive": "critical"}, False),
        ({"wal history": "critical"}, False),
        ({"wal archive": "warning", "wal gap": "warning"}, True),  # a backlog of some minutes passes
        ({"wal archive": "ok"}, True),
        ({}, True),
    ],
)
def test_the_wal_archive_counts_where_that_is_required(found: dict[str, str], protected: bool) -> None:
    assert judged(found)["protected"], "not by itself: a server may wait for its restart"
    required = judged(found, require=["backup", "WAL archive"])
    assert (required["protected"], required["needs"]) == (protected, [])


def sets(*described: tuple[str, dict[str, str]], complete: bool = True) -> list[dict[str, Any]]:
    """Return sets as status describes them, of (id, {level: outcome})."""
    return [
        {
            "id": name,
            "complete": complete,
            "proofs": {level: {"outcome": o, "when": "x"} for level, o in proofs.items()},
        }
        for name, proofs in described
    ]


DUMP, BASE = "20261127T020000Z-logical", "20261127T000000Z-base"
OLDER = ("20261126T020000Z-logical", {"checksum": "passed"})


@pytest.mark.parametrize(
    ("found", "needs"),
    [
        (sets((DUMP, {"checksum": "passed"}), OLDER), []),
        (sets((DUMP, {"checksum": "passed"}), (BASE, {"structure": "passed"})), []),
        (sets((DUMP, {}), OLDER), ["verify"]),
        (sets((DUMP, {"checksum": "passed"}), (BASE, {})), ["verify"]),
        (sets((DUMP, {"checksum": "passed", "structure": "failed"})), ["verify"]),
        (sets((DUMP, {"checksum": "passed"}), complete=False), ["verify"]),
        ([], ["verify"]),
    ],
)
def test_a_set_that_can_only_be_read_is_read_once_where_no_proof_is_required(
    found: list[dict[str, Any]], needs: list[str]
) -> None:
    def of(require: list[str], **severities: str) -> dict[str, Any]:
        one = result({**GOOD, **severities})
        said = json.loads(one["stdout"])
        said["places"][1]["sets"] = found
        return assessment([{**one, "stdout": json.dumps(said)}], require=require)[0]

    assert of(["backup", "off-site copy"], verification="warning")["needs"] == needs
    assert of(["backup", "verification"], verification="warning")["needs"] == ["verify"], "a proof is asked for"
    late = of(["backup"], **{"verification": "warning", "off-site copy": "critical"})
    assert late["needs"] == ["sync", "verify"], "what arrives has not been read"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"rc": 2, "msg": "Error executing command."}, "not installed"),
        (
            {"rc": 2, "stdout": json.dumps({"message": "It has an error.", "hint": "Mend it."})},
            "It has an error. Mend it.",
        ),
        ({"rc": 1, "stdout": "", "stderr": "Traceback\n  line"}, "Traceback line"),
        ({"unreachable": True, "msg": "No route."}, "No route."),
    ],
)
def test_no_answer_is_no_protection(answer: dict[str, Any], said: str) -> None:
    found = assessment([{"item": {"key": "a"}, **answer}])[0]
    assert assessment([{"instance": "a", **answer}]) == [found], "a look at the host says the same"
    assert not found["protected"] and not found["answered"] and found["needs"] == []
    assert said in found["lines"][0]


def test_check_mode_says_what_would_be_done_where_pgops_is_still_to_come() -> None:
    bare = {"item": {"key": "a"}, "rc": 2, "msg": "Error executing command."}
    planned = {"a": ["backup", "base", "sync", "verify"], "db1-main": ["backup", "verify"]}
    found, known = assessment([bare, result(GOOD)], planned=planned)
    assert (found["answered"], found["protected"], found["predicted"]) == (False, False, True)
    assert found["needs"] == planned["a"]
    assert found["lines"] == [
        "Would back up, take a base backup, copy it to S3 and verify that it restores. As yet: pgops is not installed on this host."
    ]
    assert known == assessment([result(GOOD)])[0], "who can tell is not guessed about"
    assert not known["predicted"]
    assert assessment([bare], planned={"b": ["backup"]}) == assessment([bare])


# --- all hosts --------------------------------------------------------------------------------------------------------


def report(
    *severities: dict[str, str], trouble: tuple[str, ...] = (), uncovered: tuple[str, ...] = ()
) -> dict[str, Any]:
    results = [result({**GOOD, **of_one}) for of_one in severities]
    return {"pgops_report": {"trouble": list(trouble), "instances": assessment(results), "uncovered": list(uncovered)}}


def test_each_host_is_on_one_side() -> None:
    hosts = {
        "good": report({}, uncovered=("cluster 17/main on port 5433",)),
        "stale": report({}, {"backup": "critical"}),
        "broken": report({}, trouble=("Copy to S3: refused.",)),
        "lost": {},
    }
    found = summary(list(hosts), hosts)
    assert found["protected"] == ["good"]
    assert found["unprotected"] == ["broken", "lost", "stale"]
    assert found["worked"] == ["good", "stale"]
    assert found["reasons"]["stale"][0] == "db1-main: backup is critical."
    assert found["reasons"]["broken"][0] == "Copy to S3: refused."
    assert "could not be reached" in found["reasons"]["lost"][0]
    assert found["lines"][0] == "1 of 4 protected"
    assert "    Not backed up: cluster 17/main on port 5433." in found["lines"]
    assert found["lines"].index("stale: NOT PROTECTED") < found["lines"].index("good: protected")
    assert "    db1-main: still safe - local: a set." in found["lines"]


def test_hosts_are_told_by_their_names_in_whatever_order_ansible_has_them() -> None:
    names = ["db10", "db9", "a", "db2-1", "db2"]
    told = [summary(order, {}) for order in (names, names[::-1])]
    assert told[0] == told[1], "the same trouble is the same text, so that it is told once"
    assert told[0]["unprotected"] == ["a", "db2", "db2-1", "db9", "db10"]
    assert told[0]["lines"][1::2] == ["%s: NOT PROTECTED" % name for name in told[0]["unprotected"]]


def test_a_host_that_ansible_does_not_know_any_more_is_not_protected() -> None:
    assert summary(["gone"], {})["unprotected"] == ["gone"]


def test_a_report_without_an_instance_is_no_protection() -> None:
    assert summary(["a"], {"a": report()})["unprotected"] == ["a"]


def test_nothing_is_said_twice() -> None:
    broken = report({}, trouble=("Copy to S3: The store is gone.",))
    broken["pgops_report"]["instances"][0].update(
        protected=False, lines=["Whether it is recent is unknown: The store is gone.", "More."]
    )
    assert summary(["a"], {"a": broken})["reasons"]["a"] == [
        "Copy to S3: The store is gone.",
        "db1-main: More.",
        "db1-main: still safe - local: a set.",
    ]


def test_the_summary_of_check_mode_is_a_prediction() -> None:
    would = {"a": ["backup", "sync", "verify"]}
    bare = {"instances": assessment([{"item": {"key": "a"}, "rc": 2}], planned=would), "trouble": []}
    broken = {**bare, "trouble": ["Program: refused."]}
    late = report({"backup": "critical"})["pgops_report"]
    hosts = {name: {"pgops_report": of} for name, of in {"new": bare, "bad": broken, "late": late}.items()}
    hosts["good"] = report({})
    lines = summary(list(hosts), hosts, check=True)["lines"]
    assert lines[0] == "Prediction, as check mode changes nothing: 1 of 4 protected already, 1 would be set up"
    assert lines[-2] == "new: would be set up", "after those that are in trouble"
    assert lines[-1].startswith("    a: Would back up, copy it to S3 and verify that it restores. As yet: ")
    assert {"bad: NOT PROTECTED", "late: NOT PROTECTED", "good: protected"} < set(lines)
    assert summary(["good"], hosts, check=True)["lines"][0].endswith("1 of 1 protected already")
    assert summary(list(hosts), hosts)["unprotected"] == ["bad", "late", "new"], "it is not, as yet"


def test_where_the_configuration_would_be_another_one_the_prediction_says_so() -> None:
    now = {"pgops_report": {**report({})["pgops_report"], "outdated": True}}
    lines = summary(["db1", "db2"], {"db1": now, "db2": report({})}, check=True)["lines"]
    assert lines[0].endswith("2 of 2 protected already")
    (line,) = (text for text in lines if "by the configuration that is there now" in text)
    assert lines.index("db1: protected") < lines.index(line) < lines.index("db2: protected")


def test_a_host_from_which_pgops_was_taken_is_neither_protected_nor_not() -> None:
    gone = {"pgops_report": {"trouble": [], "instances": [], "uncovered": [], "removed": True}}
    hosts = {"db2": gone, "db1": report({}), "db3": report({"backup": "critical"})}
    told = summary(list(hosts), hosts)
    assert (told["protected"], told["unprotected"], told["removed"]) == (["db1"], ["db3"], ["db2"])
    assert told["lines"][0] == "1 of 2 protected, 1 removed"
    assert told["lines"][-2:] == ["db2: removed", "    pgops is not on this host any more."]
    assert told["fleet"]["text"].startswith("1 of 2 hosts are not protected.")
    predicted = summary(["db2"], hosts, check=True)["lines"]
    assert predicted == [
        "Prediction, as check mode changes nothing: 0 of 0 protected already, 1 would be removed",
        "db2: would be removed",
        "    pgops would go from this host.",
    ]


def fleet(reports: dict[str, Any]) -> dict[str, str]:
    return summary(list(reports), {host: {"pgops_report": report} for host, report in reports.items()})["fleet"]


def test_five_hundred_hosts_with_one_trouble_are_one_message_that_fits_a_telephone() -> None:
    lost = {"instances": [judged({"off-site place": "critical"})]}
    late = {"instances": [judged({"backup": "critical", "disk": "warning"})]}
    hosts: dict[str, Any] = {"db%03d" % n: lost for n in range(480)}
    hosts |= {"old%d" % n: late for n in range(7)} | {"gone%d" % n: None for n in range(3)}
    hosts |= {"well%d" % n: {"instances": [judged({})]} for n in range(10)}
    told = fleet(hosts)
    assert told["level"] == "critical"
    assert told["text"].splitlines() == [
        "490 of 500 hosts are not protected.",
        "off-site place: 480 (db000, db001, db002, db003, db004 and 475 more)",
        "backup: 7 (old0, old1, old2, old3, old4 and 2 more)",
        "disk: 7 (old0, old1, old2, old3, old4 and 2 more)",
        "not reached: 3 (gone0, gone1, gone2)",
    ]
    # However long each has been so, and in whatever order they come: the same trouble is the same text.
    assert fleet(dict(reversed(list(hosts.items())))) == told
    assert len(told["text"]) < 1500


def test_a_fleet_in_which_everything_is_wrong_is_told_in_bounds_and_one_in_good_order_in_a_line() -> None:
    hosts = {
        "db%d" % n: {"instances": [judged({"wrong %d" % n: "critical", "backup": "critical"})], "trouble": []}
        for n in range(20)
    }
    text = fleet(hosts)["text"]
    assert len(text.splitlines()) == 10
    assert text.endswith("And 13 other causes.")
    assert fleet({"db1": {"instances": [judged({})]}}) == {"level": "ok", "text": "All 1 hosts are protected."}
    broken = {"instances": [judged({})], "trouble": ["Oh."]}
    assert "a step of the play failed: 1 (db1)" in fleet({"db1": broken})["text"]
    mute = {"instances": assessment([{"item": {"key": "m"}, "rc": 2, "stdout": ""}])}
    assert "no answer: 1 (db1)" in fleet({"db1": mute})["text"]
    assert "nothing is known: 1 (db1)" in fleet({"db1": {"instances": []}})["text"]


def test_a_finding_that_a_secret_has_hidden_is_no_reason_to_call_a_host_safe() -> None:
    said = {
        "findings": [{"check": "********", "severity": "critical", "text": "x", "since": None}],
        "places": [],
        "safe": [],
    }
    (judged_one,) = assessment([{"instance": "db1-main", "said": said}], require=["backup"])
    assert (judged_one["protected"], judged_one["answered"]) == (False, True)


def test_an_answer_that_the_look_at_the_host_brought_is_read_as_one_of_the_command() -> None:
    said = {"findings": [{"check": "backup", "severity": "ok", "text": "x", "since": None}], "places": [], "safe": []}
    by_look, by_command = assessment(
        [{"instance": "a", "said": said}, {"item": {"key": "a"}, "stdout": json.dumps(said)}], require=["backup"]
    )
    assert by_look == by_command
    (silent,) = assessment([{"instance": "a", "said": None, "rc": 1, "stderr": "boom"}], require=["backup"])
    assert (silent["answered"], silent["lines"]) == (False, ["Nobody can tell: boom"])
