"""Sizes and spans of time as people write them: `200GB`, `7d`."""

import re
from decimal import Decimal
from typing import Final

POWERS: Final = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4, "P": 5}
SIZE: Final = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,9})?)([KMGTP]?)(I?)B?")
SECONDS: Final = {"s": 1, "min": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400, "y": 365 * 86_400}
SPAN: Final = re.compile(r"([0-9]{1,9})(s|min|h|d|w|y)")


def size(text: str) -> int:
    """Return a number of bytes such as `2GB`, `512MiB` or `1.5tb`; raise ValueError.

    As everywhere, k is 1000 and ki is 1024.
    """
    match = SIZE.fullmatch(text.strip().upper().replace(" ", ""))
    if match is None or (match[3] and not match[2]):
        raise ValueError("a size such as 500MB or 2GiB")
    return int(Decimal(match[1]) * (1024 if match[3] else 1000) ** POWERS[match[2]])


def span(text: str) -> int:
    """Return a number of seconds of a span such as `7d` or `1d12h`; raise ValueError.

    Months are not among the units: they are not all of one length, and `m` would be taken for one.
    """
    parts = SPAN.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"a span such as 7d or 36h (units: {', '.join(SECONDS)})")
    return sum(int(number) * SECONDS[unit] for number, unit in parts)
