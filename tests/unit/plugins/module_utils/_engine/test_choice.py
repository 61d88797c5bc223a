# SPDX-License-Identifier: GPL-3.0-or-later
"""What `auto` means, as a table."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.choice import WORTH_PARALLEL, Facts, choose
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import UsageError
from ansible_collections.pgops.backup.plugins.module_utils._engine.settings import Backup

ALL = ("zstd", "lz4", "gzip")
BIG = WORTH_PARALLEL


def facts(
    native: tuple[str, ...] = ("gzip",),
    programs: tuple[str, ...] = (),
    *,
    cores: int = 4,
    size: int = 0,
    tables: int = 9,
) -> Facts:
    return Facts(frozenset(native), frozenset(programs), cores, size, tables)


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        # (format, native, layers, jobs)
        (facts(("gzip",), ("zstd", "gzip")), ("custom", "none", ("zstd",), 1)),
        (facts(("zstd", "gzip"), ("zstd",)), ("custom", "zstd", (), 1)),
        (facts(("gzip",)), ("custom", "gzip", (), 1)),
        (facts((), ("gzip",)), ("custom", "none", ("gzip",), 1)),
        (facts((), ("lz4",)), ("custom", "none", (), 1)),  # lz4 is never chosen, only asked for
        (facts(("zstd",), size=BIG), ("directory", "zstd", (), 4)),
        (facts(("zstd",), size=BIG - 1), ("custom", "zstd", (), 1)),
        (facts(("zstd",), size=BIG, tables=1), ("custom", "zstd", (), 1)),
        (facts(("zstd",), size=BIG, cores=1), ("custom", "zstd", (), 1)),
        (facts(("zstd",), size=BIG, cores=64), ("directory", "zstd", (), 4)),
        (
            facts(("gzip",), ("zstd",), size=BIG),
            ("custom", "none", ("zstd",), 1),
        ),  # zstd beside pg_dump beats gzip inside
        (facts(("gzip",), (), size=BIG), ("directory", "gzip", (), 4)),
    ],
)
def test_auto(known: Facts, expected: tuple[object, ...]) -> None:
    choice = choose(Backup(), known)
    assert (choice.format, choice.native, choice.layers, choice.jobs) == expected
    assert len(choice.reasons) == 2


@pytest.mark.parametrize("method", ALL)
def test_encryption_is_the_outermost_layer_of_one_stream(method: str) -> None:
    wanted = Backup(encryption="age", recipients=["age1x"], compression=method)
    choice = choose(wanted, facts((), ALL, size=100 * BIG))
    assert (choice.format, choice.layers) == ("custom", (method, "age"))


@pytest.mark.parametrize(
    ("wanted", "known"),
    [
        (Backup(format="directory", compression="zstd"), facts(("gzip",), ALL)),
        (Backup(format="custom", compression="zstd"), facts(("gzip",))),
        (Backup(format="plain", compression="gzip"), facts(("gzip",))),
        (Backup(compression="lz4"), facts(("zstd", "gzip"), ("zstd",))),
    ],
)
def test_what_cannot_be_is_refused(wanted: Backup, known: Facts) -> None:
    with pytest.raises(UsageError, match=r"Compression .* is not possible") as caught:
        choose(wanted, known)
    assert "compression auto" in caught.value.hint


@pytest.mark.parametrize(("level", "expected"), [(None, 3), (0, 0), (19, 19)])
def test_a_level_of_zero_is_a_level(level: int | None, expected: int) -> None:
    assert choose(Backup(compression="zstd", compression_level=level), facts(("zstd",))).level == expected


@pytest.mark.parametrize(("method", "level"), [("gzip", 19), ("gzip", 0), ("lz4", 13), ("lz4", 0), ("zstd", 20)])
def test_a_level_that_the_method_does_not_have_is_refused(method: str, level: int) -> None:
    with pytest.raises(UsageError, match=r"%s has no level %d" % (method, level)):
        choose(Backup(compression=method, compression_level=level), facts(ALL, ALL))


def test_no_compression_has_no_level() -> None:
    assert choose(Backup(compression="none", compression_level=9), facts()).level is None


@given(
    st.frozensets(st.sampled_from(ALL)),
    st.frozensets(st.sampled_from(ALL)),
    st.integers(1, 128),
    st.integers(0, 10 * BIG),
    st.integers(0, 50),
    st.sampled_from(["auto", "custom", "directory", "plain"]),
    st.sampled_from(["none", "age"]),
)
def test_auto_compression_always_finds_a_way_that_exists(
    native: frozenset[str], programs: frozenset[str], cores: int, size: int, tables: int, form: str, encryption: str
) -> None:
    if form == "directory" and encryption == "age":
        return  # the configuration refuses this pair
    wanted = Backup(format=form, encryption=encryption, recipients=["age1x"] if encryption == "age" else [])
    choice = choose(wanted, Facts(native, programs, cores, size, tables))
    outside = [layer for layer in choice.layers if layer != "age"]
    assert choice.native == "none" or choice.native in native
    assert all(layer in programs for layer in outside)
    assert not (choice.native != "none" and outside)
    assert ("age" in choice.layers) == (encryption == "age")
    assert not (choice.format == "directory" and choice.layers)
    assert not (choice.format == "plain" and choice.native != "none")
    assert choice.jobs == 1 or choice.format == "directory"
