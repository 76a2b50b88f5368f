"""What a name tells of the value it is given: `api_key = "…"`, `--token …`, `Bearer …`.

A value that only looks random is a secret where a name says so, and nowhere else.
"""

import re
from itertools import pairwise
from typing import Final

REMOVED: Final = "[secret removed]"

_PASSWORD: Final = r"passw(?:or)?d|passwd|pwd|passphrase|(?<=[A-Za-z][_\-])pass"
_STRONG: Final = (
    rf"secret|{_PASSWORD}|credentials?|"
    r"(?:api|access|private|secret|account|signing|encryption|client|auth|bearer|master|license"
    r"|deploy|webhook|session|refresh)"
    r"[_\-. ]?(?:key|token)"
)
_WEAK: Final = r"token|auth(?:orization)?|key"
# A name counts by its last word: `hf_token` and `apiKey`, not `tokenizer` or `monkey`.
_STRONG_NAME: Final = re.compile(rf"(?:{_STRONG})(?:[_\-]?(?:key|value|\d{{1,2}}))?\Z", re.I)
_WEAK_NAME: Final = re.compile(rf"(?:(?:\A|[_\-. /])(?i:{_WEAK})|[a-z](?:Key|Token|Auth))\Z")

# What has to be near a secret with a name.
HINTS: Final = ("key", "secret", "token", "pass", "pwd", "credential", "auth", "bearer", "basic")
LONGEST: Final = 1024  # how far behind a name its value ends at most

ASSIGNED: Final = re.compile(
    rf"(?P<name>{_STRONG}|token|auth(?:orization)?)(?:[_\-]?(?:key|value|\d{{1,2}}))?"
    r"(?:\\?[\"']?\]?\s{0,16}(?::\s{0,4}[A-Za-z][\w.| \[\]]{0,40}=|[:=]=?>?)|\\?[\"'],)\s{0,16}"
    r"(?:[rbuRBU]?\\?(?P<quote>[\"'])(?P<quoted>[^\"'\s<>{}\\]{8,512})(?=\\?(?P=quote))"
    r"|(?P<bare>[A-Za-z0-9+/=_\-]{20,512})(?=[\s\"',;}\])\\<&|`]|\Z))",
    re.IGNORECASE,
)
OPTION: Final = re.compile(
    rf"--?[A-Za-z0-9_\-.]{{0,64}}?(?P<name>{_STRONG}|token|auth)(?:=|\s{{1,8}})[\"']?"
    r"(?P<bare>[^\s\"'<>{}$\\\-][^\s\"'<>{}$\\]{7,511})",
    re.IGNORECASE,
)
# A whole line of YAML, of an .ini or of a shell: the value needs no quotes there.
SETTING: Final = re.compile(
    rf"^[ \t]*(?:export[ \t]+|-[ \t]+)?[\w.\-]{{0,64}}?(?P<name>{_PASSWORD})"
    r"(?::[ \t]+|=)(?P<bare>[^\s\"'()\[\]{}<>$,;\\]{8,512})[ \t]*\r?$",
    re.IGNORECASE | re.MULTILINE,
)
BEARER: Final = re.compile(
    r"\b(?:bearer|basic|authorization:\s{0,4}(?:token|apikey))\s{1,4}([A-Za-z0-9+/=_.~\-]{16,})",
    re.IGNORECASE,
)
_VARIABLE: Final = re.compile(
    r"([A-Za-z_][\w.\-]{0,127})\\?[\"']?\]?\s{0,16}"
    r"(?::\s{0,4}[A-Za-z][\w.| \[\]]{0,40}=|[:=]=?>?|\\?[\"'],|(?<=[\w])\s)\s{0,16}"
    r"(?:[rbuRBU]{0,2}\\?[\"'])?\Z"
)

_WORDS: Final = re.compile(
    r"(?:[A-Z]?[a-z]+|[A-Z]+)(?:[_\-. /](?:[A-Z]?[a-z]+|[A-Z]+))*[_\-]?\d{0,4}"
)
_CONSONANTS: Final = re.compile(r"[b-df-hj-np-tv-xz]{5}", re.IGNORECASE)


def variable_before(front: str) -> str:
    """Return the name that a value right behind `front` is given, empty when it has none."""
    found = _VARIABLE.search(front)
    return found.group(1).lstrip("-.") if found else ""


def is_assigned_secret(match: re.Match[str]) -> bool:
    """Say whether the value of a match of ASSIGNED, OPTION or SETTING is a secret."""
    quoted = value_group(match) == "quoted"
    value = match.group(value_group(match))
    if match.re is SETTING:
        # `password=password1` may be a call's argument on a line of its own.
        variable = "=" in match.group() and _WORDS.fullmatch(value) is not None
        return looks_chosen(value) and not variable
    # Bare in an assignment it may be the name of a variable.
    plain = quoted or match.re is OPTION
    if plain and re.fullmatch(_PASSWORD, match.group("name"), re.IGNORECASE):
        return looks_chosen(value)
    strong = re.fullmatch(_STRONG, match.group("name"), re.IGNORECASE) is not None
    if strong and plain:
        return len(value) >= 12 and (looks_random(value) or _looks_drawn(value))
    return len(value) >= 16 and looks_random(value)


def value_group(match: re.Match[str]) -> str:
    """Return which group of a match of ASSIGNED, OPTION or SETTING is the value."""
    return "quoted" if match.groupdict().get("quoted") is not None else "bare"


def looks_random(value: str) -> bool:
    """Say whether letters and digits alternate as in a token, and not as in a name of words."""
    kinds = [_kind(char) for char in value if char not in "_-./=+"]
    if "digit" not in kinds or not {"upper", "lower"} & set(kinds):
        return False
    # A capital begins a word: it is not counted before a small letter.
    switches = sum(
        left != right and (left, right) != ("upper", "lower") for left, right in pairwise(kinds)
    )
    return switches >= 0.2 * len(kinds) and len(set(value)) >= 8


def looks_chosen(value: str) -> bool:
    """Say whether a literal is likely a password, and not the word for one."""
    mixed = any(not char.isalpha() and char not in "_-." for char in value)
    return mixed and len(set(value)) >= 6 and value != REMOVED


def is_secret_name(name: str) -> bool:
    """Say whether a name says for sure that its value is a secret."""
    return _STRONG_NAME.search(name) is not None


def may_be_secret_name(name: str) -> bool:
    """Say whether a name may be that of a secret: `token`, `key`, `auth`."""
    return _WEAK_NAME.search(name) is not None


def is_secret_argument(name: str, value: str | None) -> bool:
    """Say whether `--name value` or `name=value` carries a secret."""
    option = name.startswith("-")
    if not option and value is None:
        return False
    if is_secret_name(name):
        return True
    if not may_be_secret_name(name.lstrip("-")):
        return False
    return option or (value is not None and looks_random(value))


def is_harmless(name: str, value: str) -> bool:
    """Say whether it is a number, or yes or no, under a name that is no sure sign of a secret."""
    if is_secret_name(name):
        return False
    words = {"true", "false", "yes", "no", "none", "on", "off"}
    return value.lower() in words or re.fullmatch(r"[+\-]?\d{1,7}(?:\.\d{0,7})?", value) is not None


def _looks_drawn(value: str) -> bool:
    """Say whether it is digits alone, or letters as in no word: five consonants in a row."""
    if value.isdigit():
        return len(set(value)) >= 6
    return not _WORDS.fullmatch(value) and _CONSONANTS.search(value) is not None


def _kind(char: str) -> str:
    if char.isdigit():
        return "digit"
    return "upper" if char.isupper() else "lower"
