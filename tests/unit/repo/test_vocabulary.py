"""One vocabulary: what Python, the config, flags and records say is the same policy."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cas.errors import InvalidInputError, UnsupportedError
from cas.repo.retain import amounts
from cas.repo.retain.retention import Keep
from cas.repo.retain.vocabulary import WORDS, as_flags, as_policy, as_words, policy, settled

counts = st.none() | st.integers(1, 10**9)
metrics = st.dictionaries(st.sampled_from(["loss", "val acc"]), st.integers(1, 99))
policies = st.builds(
    Keep,
    last=counts,
    best=counts,
    min=metrics,
    max=metrics,
    every=counts,
    hourly=counts,
    yearly=counts,
    within=st.none() | st.sampled_from(["7d", "1w2d", "36h"]),
    tagged=st.booleans(),
    budget=st.none() | st.sampled_from([1, 10**12, "200GB", "1.5TiB"]),
)


def test_every_rule_has_a_word_and_every_word_a_rule() -> None:
    assert set(WORDS) == set(Keep.__dataclass_fields__)


@given(keep=policies)
def test_a_policy_comes_back_from_its_words(keep: Keep) -> None:
    assert policy(as_words(keep)) == keep
    assert settled({f"retention.{name}": value for name, value in as_words(keep).items()}) == (
        None if keep.empty else keep
    )


def test_it_can_be_said_as_flags() -> None:
    keep = Keep(last=3, min={"loss": 2, "err": 1}, within="7d", tagged=True, budget="200GB")
    assert as_flags(keep) == (
        "--keep-last 3 --keep-min loss=2 --keep-min err=1 --keep-within 7d --keep-tagged "
        "--budget 200GB"
    )


@pytest.mark.parametrize(
    ("text", "size"),
    [("1", 1), ("200GB", 200 * 10**9), ("1.5 TiB", 3 * 2**39), ("512kib", 2**19), ("3pb", 3e15)],
)
def test_sizes(text: str, size: int) -> None:
    assert amounts.size(text) == size
    assert Keep(budget=text).budget_bytes == size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("45min", 2700), ("36h", 129_600), ("7d", 604_800), ("1w1d", 691_200)],
)
def test_spans(text: str, seconds: int) -> None:
    assert Keep(within=text).within_seconds == seconds


@pytest.mark.parametrize("text", ["", "7", "m", "7m", "7 d", "d7", "-1d", "1.5d", "7d!", "٣d"])
def test_no_spans(text: str) -> None:
    with pytest.raises(InvalidInputError, match="within"):
        Keep(within=text)


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "1iB", "1e3", "1,5GB", "0", "٣GB"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(InvalidInputError, match="budget"):
        Keep(budget=text)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"lats": 3}, "no retention rule 'lats'"),
        ({"last": "3"}, "last is a whole number"),
        ({"last": True}, "last is a whole number"),
        ({"last": 1.0}, "last is a whole number"),
        ({"min": {"a": 0}}, "min of a is a whole number"),
        ({"min": {"a": None}}, "min of a is a whole number"),
        ({"max": {1: 1}}, "max takes the name of a metric"),
        ({"max": ["a"]}, "max maps metrics"),
        ({"within": 7}, "within is text such as 7d"),
        ({"budget": 1.5}, "budget is a size"),
        ({"budget": True}, "budget is a size"),
        ({"tagged": 1}, "tagged is true or false"),
    ],
)
def test_what_makes_no_sense_is_named(words: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        as_policy(words)


def test_a_map_that_says_nothing_is_no_policy() -> None:
    assert as_policy({}) is None
    assert as_policy({"last": None, "tagged": False}) is None
    assert as_policy(Keep()) is None


def test_a_rule_that_is_not_known_is_never_left_out() -> None:
    with pytest.raises(UnsupportedError, match=r"retention\.liked"):
        settled({"retention.last": 1, "retention.liked": True})
