# SPDX-License-Identifier: GPL-3.0-or-later
"""What a server stores for a password. That servers and libpq make the same of odd ones, the integration tests show."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import settings as rules
from hypothesis import strategies as st

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.scram import is_stored, stored

SALT = bytes(range(16))


def test_the_example_of_the_standard() -> None:
    """RFC 7677, section 3: the keys follow from the proof and the signature that it prints."""
    assert stored("pencil", salt=base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")) == (
        "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY="
        ":wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
    )


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("a\u00a0b", "a b", True),  # an odd blank is a blank
        ("I\u00adX", "IX", True),  # a soft hyphen is nothing
        ("\u2168", "IX", True),  # a Roman number is its letters
        ("a\u0301", "\u00e1", True),
        ("\u0007\u00e1", "\u0007a\u0301", False),  # what is forbidden is taken as it is
        ("\u06271", "\u0627\u0661", False),
        ("A", "a", False),
    ],
)
def test_passwords_that_are_written_differently(one: str, other: str, same: bool) -> None:
    assert is_stored(one, stored(other, salt=SALT, iterations=1)) is same


@given(st.text(min_size=1, max_size=20), st.text(min_size=1, max_size=20), st.binary(min_size=1, max_size=20))
@rules(max_examples=200)
def test_a_password_fits_what_was_made_of_it_and_no_other_does(password: str, other: str, salt: bytes) -> None:
    kept = stored(password, salt=salt, iterations=2)
    assert is_stored(password, kept)
    assert is_stored(other, kept) == (stored(other, salt=salt, iterations=2) == kept)
    assert password not in kept or len(password) < 4


@pytest.mark.parametrize(
    "kept",
    [
        "",
        "md5a3556571e93b0d20722ba62be61e8c2d",
        "pencil",
        "SCRAM-SHA-256$0:AAAA$AAAA:AAAA",
        "SCRAM-SHA-256$99999999999999:AAAA$AAAA:AAAA",
        "SCRAM-SHA-256$1:A$AAAA:AAAA",
        "SCRAM-SHA-256$1:AAAA$AAAA",
    ],
)
def test_what_is_not_of_this_kind_fits_no_password(kept: str) -> None:
    assert not is_stored("pencil", kept)
