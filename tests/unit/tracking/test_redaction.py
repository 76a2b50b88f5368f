"""A user's own rules: what goes besides, and what stays."""

from collections.abc import Iterator

import pytest

from cas.errors import InvalidInputError
from cas.tracking.privacy import redaction
from cas.tracking.privacy.redaction import Redaction
from cas.tracking.privacy.secrets import REMOVED, find, scrub_params, scrub_text

TOKEN = "ghp_" + "aB3dE5fG7hJ9kL1mN2pQ4rS6tU8vW0xY1zA2"


@pytest.fixture(autouse=True)
def own_rules() -> Iterator[None]:
    yield
    redaction.use(Redaction())


def test_an_allowed_value_stays_and_others_do_not() -> None:
    rules = Redaction(allow=(r"ghp_aB3d\w+",))
    assert find(TOKEN, rules) == []
    assert [one.kind for one in find(f"{TOKEN} x{TOKEN[::-1]} hf_{TOKEN[4:38]}", rules)] == [
        "Hugging Face token"
    ]
    assert find(TOKEN, Redaction(allow=("ghp_",))) != []  # the whole value has to match


@pytest.mark.parametrize("mark", redaction.MARKS)
def test_a_mark_behind_a_value_says_that_it_is_none(mark: str) -> None:
    text = f'a = "{TOKEN}"  # {mark}\nb = "{TOKEN}"\n'
    assert scrub_text(text) == (f'a = "{TOKEN}"  # {mark}\nb = "{REMOVED}"\n', 1)


def test_named_values_go_whatever_they_look_like() -> None:
    redaction.use(Redaction(names=("patient",)))
    text = 'patient = "Jane Doe", inpatient = "x", patient: jane'
    assert scrub_text(text) == (
        f'patient = "{REMOVED}", inpatient = "x", patient: {REMOVED}', 2
    )  # fmt: skip
    assert scrub_params({"patient": "Jane", "n": {"patient": 7}}) == {
        "patient": REMOVED, "n": {"patient": REMOVED}
    }  # fmt: skip


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"pii": ["mail"]}, "redaction.pii: no kind 'mail'; there are email, phone, iban, card"),
        ({"pi": True}, "redaction: no key 'pi'; there are allow, names, pii"),
        ({"allow": ["("]}, r"redaction.allow: '\(' is no regular expression"),
        ({"allow": "x"}, "redaction.allow: expected a list of texts, not 'x'"),
        ({"names": 3}, "redaction.names: expected a list of texts, not 3"),
    ],
)
def test_rules_that_make_no_sense_are_named(given: dict[str, object], error: str) -> None:
    with pytest.raises(InvalidInputError, match=error):
        Redaction.of(given)


def test_rules_come_back_from_their_words() -> None:
    rules = Redaction(pii=("card",), allow=("a+",), names=("patient",))
    assert Redaction.of(rules.as_words()) == rules
    assert Redaction.of(rules) is rules
    assert Redaction.of(None) == Redaction()
    assert Redaction.of({"pii": False}).as_words() == {}
