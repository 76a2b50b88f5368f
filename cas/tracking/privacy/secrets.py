"""The filter that everything captured passes before it is hashed.

A content-addressed store cannot forget, so a token that was hashed once would stay. What is a
secret by its form (a token with a prefix, a private key, a password in a URL) is replaced wherever
it stands; what only looks random is replaced where a name says that it is a secret
(`api_key = "…"`, `--token …`). Digests, UUIDs and data in base64 are left as they are. A user's
own rules, and personal data on request: `redaction`.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Final

from cas.tracking.privacy import secretforms as forms
from cas.tracking.privacy import secretnames as names
from cas.tracking.privacy.noting import note
from cas.tracking.privacy.personal import personal_data
from cas.tracking.privacy.redaction import MARKS, Redaction, in_force

REMOVED: Final = names.REMOVED
NOT_TEXT: Final = b"\0"
NAMED: Final = "value of a secret's name"
UNKNOWN: Final = "secret"  # what nobody knows the kind of any more


@dataclass(frozen=True, slots=True)
class Found:
    """One secret in a text: where it begins and ends, its kind, and the name it is given there."""

    start: int
    end: int
    kind: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class Taken:
    """One secret that was taken out of a file: never what it was.

    `line` counts from 1; `place` says which of the file's `[secret removed]` stands for it, from 0.
    Equal secrets of this process have equal marks, and nothing else can be told from one.
    """

    line: int
    place: int
    kind: str
    name: str
    mark: int


def find(text: str, rules: Redaction | None = None) -> list[Found]:
    """Return every secret in a text, in order, none overlapping another."""
    search = _Search(text, rules or in_force())
    search.keys()
    search.tokens()
    search.urls()
    search.commands()
    search.named()
    search.personal()
    return sorted(search.found, key=attrgetter("start"))


def replaced(text: str, found: Iterable[Found]) -> str:
    """Return the text with what was found replaced; no line is added or lost."""
    pieces, at = [], 0
    for one in found:
        ends = "".join(char for char in text[one.start : one.end] if char in "\r\n")
        pieces += [text[at : one.start], REMOVED, ends]
        at = one.end
    return "".join([*pieces, text[at:]])


def scrub_text(text: str, rules: Redaction | None = None) -> tuple[str, int]:
    """Return the text with every secret replaced, and how many were; no line is added or lost.

    By the rules in force, or by these.
    """
    found = find(text, rules)
    for one in found:
        note(one.kind)
    return (replaced(text, found), len(found)) if found else (text, 0)


def scrub_bytes(data: bytes) -> tuple[bytes, int]:
    """Return a text file's bytes with every secret replaced; what is not text stays as it is."""
    clean, found = scrub_file(data)
    for one in found:
        note(one.kind)
    return clean, len(found)


def scrub_file(data: bytes) -> tuple[bytes, list[Taken]]:
    """Return a text file's bytes without secrets, and what was taken out of them."""
    taken: list[Taken] = []

    def clean(text: str) -> str:
        found = find(text)
        for before, one in enumerate(found):
            line = text.count("\n", 0, one.start) + 1
            place = text.count(REMOVED, 0, one.start) + before
            mark = hash(text[one.start : one.end])
            taken.append(Taken(line, place, one.kind, one.name, mark))
        return replaced(text, found) if found else text

    cleaned = changed(data, clean)
    return (cleaned if taken else data), taken


def changed(data: bytes, change: Callable[[str], str]) -> bytes:
    """Return a text file's bytes with its text changed; what is not text stays as it is."""
    encoding, errors = "utf-8", "surrogateescape"
    if data[:2] in {b"\xff\xfe", b"\xfe\xff"}:
        encoding, errors = "utf-16-le" if data[:1] == b"\xff" else "utf-16-be", "surrogatepass"
    elif NOT_TEXT in data:
        return data
    try:
        text = data.decode(encoding, errors)
    except UnicodeDecodeError:
        return data
    return change(text).encode(encoding, errors)


def scrub_pieces(
    read: Callable[[int], bytes],
    read_line: Callable[[int], bytes],
    size: int,
    tell: Callable[[Taken], None] = lambda _: None,
) -> Iterator[bytes]:
    """Yield a long text without secrets, in pieces of about `size` bytes; `tell` what was in it.

    A piece goes on to the end of a line, and of a private key, so that none is cut in two.
    """
    lines = 0
    while piece := read(size) + read_line(size):
        while is_cut(piece) and len(piece) < 4 * size and (more := read_line(size)):
            piece += more
        clean, taken = scrub_file(piece)
        for one in taken:
            tell(replace(one, line=one.line + lines))
        lines += piece.count(b"\n")
        yield clean


def is_cut(piece: bytes) -> bool:
    """Say whether a piece of a text ends within a private key."""
    begin = piece.rfind(b"-----BEGIN ")
    return begin >= 0 and piece.find(b"-----END ", begin) < 0 and b"PRIVATE KEY" in piece[begin:]


def scrub_argv(argv: Sequence[str]) -> list[str]:
    """Return a command's arguments with the values of secret options masked, as valid text."""
    clean: list[str] = []
    option = ""  # the secret option whose value comes next
    for argument in argv:
        if option and not argument.startswith("--"):
            clean.append(_given(option, argument))
            option = ""
            continue
        name, equals, value = argument.partition("=")
        secret = names.is_secret_argument(name, value if equals else None)
        option = name if secret and not equals else ""
        if secret and value:
            clean.append(f"{valid_text(name)}={_given(name, value)}")
        else:
            clean.append(valid_text(scrub_text(argument)[0]))
    # Some are secrets only beside the word before them, as in `wandb login KEY`.
    return _scrub_together(clean)


def scrub_url(url: str) -> str:
    """Return a URL without user, password, signatures and tokens; a plain `git@` stays."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return valid_text(scrub_text(url)[0])
    rest, _, fragment = rest.partition("#")
    rest, _, query = rest.partition("?")
    host, slash, path = rest.partition("/")
    user, at, bare_host = host.rpartition("@")
    if at and (":" in user or scheme.lower() in {"http", "https"}):
        host = bare_host
    kept = "&".join(part for part in query.split("&") if part and not _is_signature(part))
    tail = f"?{kept}" if kept else ""
    if fragment and "=" not in fragment:
        tail += f"#{fragment}"
    return valid_text(scrub_text(f"{scheme}://{host}{slash}{path}{tail}")[0])


def scrub_params(params: Mapping[str, object]) -> dict[str, object]:
    """Return the params with every value masked that stands under a secret name, at any depth."""
    return {scrub_text(str(key))[0]: _value(value, str(key)) for key, value in params.items()}


def valid_text(text: str) -> str:
    r"""Return the text with what is not valid Unicode written as `\udcff`."""
    return text.encode("utf-8", "backslashreplace").decode()


class _Search:
    """A text, and what was found in it; that is blank for the stages that follow."""

    def __init__(self, text: str, rules: Redaction) -> None:
        self.text = text
        self.rules = rules
        self.found: list[Found] = []
        self._original = text

    def keys(self) -> None:
        """Find private keys, whole or cut off."""
        if forms.KEY_MARK not in self.text:
            return
        for pattern in (forms.PRIVATE_KEY, forms.CUT_PRIVATE_KEY):
            spans = [m.span() for m in pattern.finditer(self.text) if forms.LONG_RUN.search(m[0])]
            self._take((*span, "private key") for span in spans)

    def tokens(self) -> None:
        """Find tokens by their form."""
        for form in forms.tokens_in(self.text):
            matches = self._all(form.pattern)
            self._take((*m.span(m.lastindex or 0), form.kind) for m in matches)

    def urls(self) -> None:
        """Find what a URL is signed or opened with."""
        if "://" not in self.text:
            return
        self._take((*m.span(1), "password in a URL") for m in self._all(forms.URL_PASSWORD))
        users = (m for m in self._all(forms.URL_USER) if names.looks_random(m[1]))
        self._take((*m.span(1), "token in a URL") for m in users)
        self._take((*m.span(1), "signature in a URL") for m in self._all(forms.URL_SIGNATURE))

    def commands(self) -> None:
        """Find what commands and manifests are given without a name for it."""
        if any(hint in self.text for hint in forms.COMMAND_HINTS):
            for pattern in forms.COMMANDS:
                self._take((*m.span(1), "login") for m in self._all(pattern))
        if "Secret" in self.text and forms.SECRET_MANIFEST.search(self.text):
            for data in self._all(forms.MANIFEST_DATA):
                values = self._all(forms.MANIFEST_VALUE, *data.span())
                self._take((*m.span(1), "Kubernetes secret") for m in values)

    def named(self) -> None:
        """Find what a name says is a secret."""
        own = self.rules.named
        if own is not None:
            for m in self._all(own):
                self._take([(*m.span(m.lastindex or 0), NAMED)])
        for start, end in self._windows():
            for pattern in (names.ASSIGNED, names.OPTION, names.SETTING):
                matches = filter(names.is_assigned_secret, self._all(pattern, start, end))
                self._take((*m.span(names.value_group(m)), NAMED) for m in matches)
            bearers = (m for m in self._all(names.BEARER, start, end) if names.looks_random(m[1]))
            self._take((*m.span(1), "authorization") for m in bearers)

    def personal(self) -> None:
        """Find personal data, as far as it is asked for."""
        if self.rules.pii:
            for one in list(personal_data(self.text, frozenset(self.rules.pii))):
                if not self.text[one[0] : one[1]].isspace():
                    self._take([one])

    def _all(
        self, pattern: re.Pattern[str], start: int = 0, end: int | None = None
    ) -> list[re.Match[str]]:
        return list(pattern.finditer(self.text, start, len(self.text) if end is None else end))

    def _windows(self) -> Iterator[tuple[int, int]]:
        """Yield the parts of lines that are near a word such as `key`: a line may be long."""
        lowered = self.text.lower()
        if len(lowered) != len(self.text):  # some capitals become two letters
            lowered = re.sub("[A-Z]", lambda m: m[0].lower(), self.text)
        places = sorted(at for hint in names.HINTS for at in _places(lowered, hint))
        begin = reached = 0
        for at in places:
            if at >= reached:
                if reached > begin:
                    yield begin, reached
                begin = max(self.text.rfind("\n", 0, at) + 1, at - names.LONGEST, reached)
            line_end = self.text.find("\n", at, at + names.LONGEST)
            end = min(at + names.LONGEST, len(self.text)) if line_end < 0 else line_end
            reached = max(reached, end)
        if reached > begin:
            yield begin, reached

    def _take(self, spans: Iterable[tuple[int, int, str]]) -> None:
        taken = [
            Found(start, end, kind, names.variable_before(self._line_before(start)))
            for start, end, kind in list(spans)
            if not self._is_allowed(start, end)
        ]
        if not taken:
            return
        self.found += taken
        pieces, at = [], 0
        for one in sorted(taken, key=attrgetter("start")):
            pieces += [self.text[at : one.start], " " * (one.end - one.start)]
            at = one.end
        self.text = "".join([*pieces, self.text[at:]])

    def _line_before(self, at: int) -> str:
        start = max(self._original.rfind("\n", 0, at) + 1, at - 256)
        return self._original[start:at]

    def _is_allowed(self, start: int, end: int) -> bool:
        before = self._original.startswith(REMOVED, start)  # it was filtered once already
        if before or self.rules.allows(self._original[start:end]):
            return True
        line_end = self._original.find("\n", end)
        rest = self._original[end : len(self._original) if line_end < 0 else line_end]
        return any(mark in rest for mark in MARKS)


def _places(text: str, word: str) -> Iterator[int]:
    at = text.find(word)
    while at >= 0:
        yield at
        at = text.find(word, at + len(word))


def _given(option: str, value: str) -> str:
    """Return what a secret option is given, unless it is one."""
    plain = names.is_harmless(option, value) or in_force().allows(value)
    return valid_text(scrub_text(value)[0]) if plain else REMOVED


def _scrub_together(argv: list[str]) -> list[str]:
    joined = "\n".join(argv).replace("\n", " ")
    found = find(joined)
    if not found:
        return argv
    clean, at = [], 0
    for argument in argv:
        inside = [
            Found(max(one.start - at, 0), min(one.end - at, len(argument)), one.kind)
            for one in found
            if one.start < at + len(argument) and one.end > at
        ]
        clean.append(replaced(argument, inside) if inside else argument)
        at += len(argument) + 1
    return clean


def _is_signature(part: str) -> bool:
    name = part.partition("=")[0].lower()
    return (
        name in {"sig", "signature", "awsaccesskeyid", "googleaccessid"}
        or name.endswith(("-signature", "-credential", "-security-token"))
        or names.is_secret_name(name)
        or names.may_be_secret_name(name)
    )


def _value(value: object, name: str) -> object:
    strong = names.is_secret_name(name) or name.lower() in in_force().words
    if isinstance(value, Mapping):
        return {
            scrub_text(str(key))[0]: _value(item, name if strong else str(key))
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        items = [_value(item, name) for item in value]
        return items if isinstance(value, list) else tuple(items)
    if value is None or isinstance(value, bool) or not (strong or isinstance(value, str)):
        return value
    text = str(value)
    weak = names.may_be_secret_name(name) and len(text) >= 16 and names.looks_random(text)
    if not (strong or weak):
        return scrub_text(text)[0]
    if value in ("", b"", REMOVED) or in_force().allows(text):
        return value
    note(NAMED)
    return REMOVED
