"""Personal data in text: e-mail addresses, phone numbers, IBANs and payment cards.

Taken out on request only. An IBAN counts when its check digits (ISO 7064, modulo 97) agree, a card
number when its last digit (Luhn) does.
"""

import re
from collections.abc import Iterator, Set
from typing import Final

from cas.tracking.privacy.redaction import CARD, EMAIL, IBAN, PHONE

_EMAIL: Final = re.compile(
    r"(?<![\w.+\-])(?!git@)[\w.+\-]{1,64}@(?:[^\W_](?:[\w\-]{0,62})\.){1,8}[^\W\d_]{2,24}(?![\w\-])"
)
_IBAN: Final = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?:[ \-]?[A-Z0-9]){11,40}")
_CARD: Final = re.compile(r"(?<![\w.\-])[2-6]\d{3}(?:[ \-]?\d){8,15}(?![\w\-]|\.\d)")
# With a country code, with the area in brackets, or where a word says so.
_PHONE: Final = re.compile(
    r"(?<![\w.+])(?:\+|00)[1-9](?!\.)(?:[ .\-/]?\(?\d\)?){6,14}(?![\w\-])"
    r"|(?<![\w.])\(\d{2,5}\)[ \-]?\d{3,4}[ \-]\d{3,4}(?![\w\-])"
    r"|(?<![\w.\-])(?:1-)?[2-9]\d\d-\d{3}-\d{4}(?![\w\-])"
    r"|(?:phone|mobile?|telefon|\btel|\bfax)[.: =]{1,2}[ \"']{0,3}"
    r"([+(]?\d(?:[ .\-/]{0,2}\(?\d\)?){6,14})(?![\w\-])",
    re.IGNORECASE,
)
_IBAN_LENGTHS: Final = range(15, 35)


def personal_data(text: str, kinds: Set[str]) -> Iterator[tuple[int, int, str]]:
    """Yield start, end and kind of what is personal; pieces may overlap."""
    if EMAIL in kinds and "@" in text:
        yield from ((*match.span(), EMAIL) for match in _EMAIL.finditer(text))
    if IBAN in kinds:
        for match in _IBAN.finditer(text):
            if size := _iban_length(match.group()):
                yield match.start(), match.start() + size, IBAN
    if CARD in kinds:
        found = _CARD.finditer(text)
        yield from ((*match.span(), CARD) for match in found if has_card_check(match.group()))
    if PHONE in kinds:
        found = _PHONE.finditer(text)
        yield from ((*match.span(match.lastindex or 0), PHONE) for match in found)


def has_iban_check(text: str) -> bool:
    """Say whether the check digits of an account number agree."""
    plain = re.sub(r"[ \-]", "", text)
    if len(plain) not in _IBAN_LENGTHS:
        return False
    turned = plain[4:] + plain[:4]
    return int("".join(str(int(char, 36)) for char in turned)) % 97 == 1


def has_card_check(text: str) -> bool:
    """Say whether the last digit of a card number agrees with the others."""
    digits = [int(char) for char in text if char.isdigit()]
    if not 13 <= len(digits) <= 19 or len(set(digits)) < 2:
        return False
    doubled = [digit * 2 - 9 * (digit > 4) for digit in digits[-2::-2]]
    return (sum(doubled) + sum(digits[::-2])) % 10 == 0


def _iban_length(text: str) -> int:
    """Return how much of a text is an account number: words may follow it."""
    ends = [len(text), *(place for place, char in enumerate(text) if char in " -")]
    return max((end for end in ends if has_iban_check(text[:end])), default=0)
