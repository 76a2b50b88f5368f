"""Personal data goes on request, and nothing that only looks like it."""

from collections.abc import Iterator

import pytest

from cas.tracking.privacy import redaction
from cas.tracking.privacy.personal import has_card_check, has_iban_check, personal_data
from cas.tracking.privacy.redaction import CARD, EMAIL, IBAN, PERSONAL, PHONE, Redaction
from cas.tracking.privacy.secrets import REMOVED, scrub_text

FOUND = {
    "mail": (
        EMAIL,
        "to jane.doe+lab@mail.example.org now",
        "jane.doe+lab@mail.example.org",
    ),
    "mail of any script": (EMAIL, "josé@bücher.example,", "josé@bücher.example"),
    "phone with a word": (PHONE, "Telefon: 030 901820, abends", "030 901820"),
    "phone with a short word": (PHONE, "Tel. (030) 90 18 20.", "(030) 90 18 20"),
    "phone toll-free": (PHONE, "call 1-800-555-0199", "1-800-555-0199"),
    "phone abroad": (PHONE, "call +49 30 901820 now", "+49 30 901820"),
    "phone dialled": (PHONE, "call 0044 20 7946 0958 now", "0044 20 7946 0958"),
    "phone in brackets": (PHONE, "call (555) 012-3456 now", "(555) 012-3456"),
    "phone with dashes": (PHONE, "call 555-012-3456 now", "555-012-3456"),
    "iban": (IBAN, "to GB82 WEST 1234 5698 7654 32 by", "GB82 WEST 1234 5698 7654 32"),
    "iban packed": (IBAN, "to DE89370400440532013000.", "DE89370400440532013000"),
    "card": (CARD, "paid 4111 1111 1111 1111 once", "4111 1111 1111 1111"),
    "card packed": (CARD, "paid 378282246310005, once", "378282246310005"),
}
NOT_FOUND = {
    "loss": "step 4111111 loss 0.4111111111111111",
    "wrong card": "id 4111 1111 1111 1112",
    "wrong iban": "GB83 WEST 1234 5698 7654 32",
    "decorator": "@pytest.mark.parametrize",
    "e-mail without a domain": "someone@localhost",
    "range": "steps 100-200-3000",
    "git's user": "git@git.example.org:team/model",
    "signed number": "moved by +1.234567890",
    "hotel": "hotel 1234567890",
    "date": "2026-03-15 10:20:30",
    "version": "1.2.3-4-5678",
    "address": "192.168.100.200:8080",
    "timestamp": "1712345678.123456",
    "shape": "(128, 256, 512)",
    "zeros": "0000 0000 0000 0000",
    "uuid": "123e4567-e89b-12d3-a456-426614174000",
    "commit": "a1b2c3d4e5f60718293a4b5c6d7e8f9012345678",
}


@pytest.fixture(autouse=True)
def own_rules() -> Iterator[None]:
    yield
    redaction.use(Redaction())


@pytest.mark.parametrize(("kind", "text", "value"), FOUND.values(), ids=FOUND)
def test_it_is_found_whole(kind: str, text: str, value: str) -> None:
    found = [text[start:end] for start, end, _ in personal_data(text, {kind})]
    assert found == [value]


@pytest.mark.parametrize("text", NOT_FOUND.values(), ids=NOT_FOUND)
def test_what_looks_like_it_stays(text: str) -> None:
    redaction.use(Redaction(pii=PERSONAL))
    assert scrub_text(text) == (text, 0)


def test_it_goes_on_request_only_and_only_what_was_asked_for() -> None:
    text = "jane@example.org paid 4111 1111 1111 1111"
    assert scrub_text(text) == (text, 0)
    redaction.use(Redaction(pii=(CARD,)))
    assert scrub_text(text) == (f"jane@example.org paid {REMOVED}", 1)
    redaction.use(Redaction.of({"pii": True}))
    assert scrub_text(text) == (f"{REMOVED} paid {REMOVED}", 2)


def test_check_digits_decide() -> None:
    assert has_card_check("5555 5555 5555 4444")
    assert not has_card_check("5555 5555 5555 4445")
    assert not has_card_check("1111")
    assert has_iban_check("FR1420041010050500013M02606")
    assert not has_iban_check("FR1420041010050500013M02607")
    assert not has_iban_check("FR14")
