"""Versions are ordered by precedence, never as texts."""

import pytest

from overair.errors import UsageError
from overair.model.version import MAX_LENGTH, compare, parse_version

# Semantic Versioning 2.0.0, section 11, and the trap that gave this module its reason.
RISING = [
    "0.9.9",
    "1.0.0-alpha",
    "1.0.0-alpha.1",
    "1.0.0-alpha.beta",
    "1.0.0-beta",
    "1.0.0-beta.2",
    "1.0.0-beta.11",
    "1.0.0-rc.1",
    "1.0.0",
    "2.9.0",
    "2.10.0",
    "10.0.0",
]


@pytest.mark.parametrize("i", range(len(RISING)))
def test_order_is_by_precedence(i: int) -> None:
    signs = [(compare(RISING[i], other) > 0) - (compare(RISING[i], other) < 0) for other in RISING]
    assert signs == [1] * i + [0] + [-1] * (len(RISING) - i - 1)


def test_2_10_0_is_newer_than_2_9_0() -> None:
    assert compare("2.10.0", "2.9.0") > 0
    assert max("2.10.0", "2.9.0") == "2.9.0", "as texts they are the other way round"


def test_build_metadata_does_not_count() -> None:
    assert compare("1.0.0+a", "1.0.0+b") == 0


@pytest.mark.parametrize(
    "text",
    ["", "1", "1.0", "v1.0.0", "1.0.0.0", "01.0.0", "1.0.0-", "1.0.0-01", "1.0.0+", "1.0.0\n", " 1.0.0", "1.0.0 ", "x"],
)
def test_what_is_not_a_version_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not a version") as caught:
        parse_version(text)
    assert caught.value.exit_code == 2
    assert "MAJOR.MINOR.PATCH" in caught.value.hint


def test_a_version_has_a_longest_length() -> None:
    longest = "1.0.0-" + "a" * (MAX_LENGTH - 6)
    assert str(parse_version(longest)) == longest
    with pytest.raises(UsageError):
        parse_version(longest + "a")


def test_an_endless_version_is_not_repeated_in_the_message() -> None:
    with pytest.raises(UsageError) as caught:
        parse_version("9" * 1_000_000)
    assert len(caught.value.message) < 200
