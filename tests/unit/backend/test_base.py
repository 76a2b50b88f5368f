"""Keys and spans are checked where they are made."""

import pytest

from cas.backend.base import Span, check_hint, check_key, check_prefix
from cas.errors import InvalidInputError


@pytest.mark.parametrize("key", ["a", "0", "roots/000001", "packs/a-b_c.d", "_/-", "a" * 200])
def test_a_key_is_returned_as_it_is(key: str) -> None:
    assert check_key(key) == key


@pytest.mark.parametrize("prefix", ["", "packs", "packs/", "packs/ab"])
def test_a_prefix_may_end_with_a_slash(prefix: str) -> None:
    assert check_prefix(prefix) == prefix


def test_a_hint_has_one_segment() -> None:
    assert check_hint("newest-root") == "newest-root"
    for name in ("", "a/b", "..", "A"):
        with pytest.raises(InvalidInputError):
            check_hint(name)


@pytest.mark.parametrize(("offset", "length"), [(-1, None), (-1, 1), (0, -1)])
def test_a_span_is_never_negative(offset: int, length: int | None) -> None:
    with pytest.raises(InvalidInputError):
        Span(offset, length)
