"""The filter that everything captured passes before it is hashed.

A content-addressed store cannot forget, so a token that was hashed once would stay. What is a
secret by its form (a token with a prefix, a private key, a password in a URL) is replaced wherever
it stands; what only looks random is replaced where a name says that it is a secret
(`api_key = "…"`, `--token …`). Digests, UUIDs and data in base64 are left as they are.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Final

REMOVED: Final = "[secret removed]"
NOT_TEXT: Final = b"\0"
Replace = Callable[[re.Match[str]], str]

# Each form with the literal texts of which one stands in every match: looking for those first makes
# the filter a thousand times faster on text that holds no secret.
_TOKENS: Final = tuple(
    (tuple(hints.split()), re.compile(rf"(?<![A-Za-z0-9])(?:{form})"))
    for hints, form in (
        ("AKIA ASIA ABIA ACCA", r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}(?![A-Za-z0-9])"),
        ("ghp_ gho_ ghu_ ghs_ ghr_", r"gh[pousr]_[A-Za-z0-9]{36,255}"),
        ("github_pat_", r"github_pat_[A-Za-z0-9_]{22,255}"),
        (
            "glpat- gldt- glrt- glptt- glcbt- glsoat- gloas-",
            r"gl(?:pat|dt|rt|ptt|cbt|soat|oas)-[A-Za-z0-9_\-.]{20,255}",
        ),
        ("hf_ api_org_", r"(?:hf|api_org)_[A-Za-z0-9]{30,64}(?![A-Za-z0-9_])"),
        (
            "sk-",
            r"sk-(?:(?:proj|svcacct|admin|None|or-v1|ant-[a-z0-9]{2,10})-[A-Za-z0-9_\-]{20,255}"
            r"|[A-Za-z0-9]{32,64}(?![A-Za-z0-9_\-]))",
        ),
        ("xox", r"xox[abeoprs](?:-[A-Za-z0-9]{2,}){2,8}"),
        ("xapp-", r"xapp-\d-[A-Za-z0-9]+-\d+-[a-f0-9]{16,}"),
        ("hooks.slack.com", r"hooks\.slack\.com/(?:services|workflows)/[A-Za-z0-9_/+\-]{20,}"),
        ("AIza", r"AIza[0-9A-Za-z_\-]{35}(?![0-9A-Za-z_\-])"),
        ("ya29.", r"ya29\.[0-9A-Za-z_\-]{20,}"),
        ("GOCSPX-", r"GOCSPX-[A-Za-z0-9_\-]{24,}"),
        ("sk_live_ sk_test_ rk_live_ rk_test_", r"[sr]k_(?:live|test)_[0-9A-Za-z]{16,255}"),
        ("whsec_", r"whsec_[A-Za-z0-9+/=]{24,}"),
        ("npm_", r"npm_[A-Za-z0-9]{36}(?![A-Za-z0-9])"),
        ("pypi-Ag", r"pypi-Ag[A-Za-z0-9_\-]{30,}"),
        ("dckr_pat_", r"dckr_pat_[A-Za-z0-9_\-]{20,}"),
        ("dapi", r"dapi[a-f0-9]{32}(?![a-f0-9])"),
        ("wandb_v1_", r"wandb_v1_[A-Za-z0-9_]{40,}"),
        ("SG.", r"SG\.[A-Za-z0-9_\-]{22}\.[A-Za-z0-9_\-]{43}"),
        ("eyJ", r"eyJ[A-Za-z0-9_\-]{10,}\.eyJ[A-Za-z0-9_\-]{10,}\.[A-Za-z0-9_\-]{10,}"),
        ("AccountKey= AccessKey=", r"(?:Account|SharedAccess)Key=[A-Za-z0-9+/]{40,88}={0,2}"),
    )
)

_BEGIN: Final = r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
_PRIVATE_KEY: Final = re.compile(
    rf"{_BEGIN}.{{0,65536}}?-----END [A-Z0-9 ]{{0,40}}PRIVATE KEY(?: BLOCK)?-----", re.DOTALL
)
_CUT_PRIVATE_KEY: Final = re.compile(rf"{_BEGIN}(?:(?:\\[nr]|[\s\"',])+[A-Za-z0-9+/=]{{20,}})+")
_LONG_RUN: Final = re.compile(r"[A-Za-z0-9+/=]{40}")

_URL_PASSWORD: Final = re.compile(r"://([^\s/@:'\"<>{}$]{0,256}:[^\s/@'\"<>{}$]{1,512})@")
_URL_USER: Final = re.compile(r"://([^\s/@:'\"<>{}$]{16,512})@")
_URL_SIGNATURE: Final = re.compile(
    r"[?&](?:[a-z\-]*(?:signature|credential|security-token|access_?token|api_?key)|sig|token|key)"
    r"=([^&\s\"'<>#)\\{}]{8,})",
    re.IGNORECASE,
)
_BEARER: Final = re.compile(r"\b(?:bearer|basic)\s{1,4}([A-Za-z0-9+/=_.~\-]{16,})", re.IGNORECASE)

_PASSWORD: Final = r"passw(?:or)?d|pwd|passphrase"
_STRONG: Final = (
    rf"secret|{_PASSWORD}|credentials?|"
    r"(?:api|access|private|secret|account|signing|encryption|client|auth|bearer|master)"
    r"[_\-. ]?(?:key|token)"
)
_WEAK: Final = r"token|auth(?:orization)?|key"
# A name counts by its last word: `hf_token` and `apiKey`, not `tokenizer` or `monkey`.
_STRONG_NAME: Final = re.compile(rf"(?:{_STRONG})(?:[_\-]?(?:key|value|\d{{1,2}}))?\Z", re.I)
_WEAK_NAME: Final = re.compile(rf"(?:(?:\A|[_\-. /])(?i:{_WEAK})|[a-z](?:Key|Token|Auth))\Z")

_ASSIGNED: Final = re.compile(
    rf"(?P<name>{_STRONG}|token|auth(?:orization)?)(?:[_\-]?(?:key|value|\d{{1,2}}))?"
    r"\\?[\"']?\]?\s{0,16}(?::\s{0,4}[A-Za-z][\w.| \[\]]{0,40}=|[:=]=?>?)\s{0,16}"
    r"(?:[rbuRBU]?\\?(?P<quote>[\"'])(?P<quoted>[^\"'\s<>{}\\]{8,512})(?=\\?(?P=quote))"
    r"|(?P<bare>[A-Za-z0-9+/=_\-]{20,512})(?=[\s\"',;}\])]|\Z))",
    re.IGNORECASE,
)
_OPTION: Final = re.compile(
    rf"--?[A-Za-z0-9_\-.]{{0,64}}?(?P<name>{_STRONG}|token|auth)(?:=|\s{{1,8}})[\"']?"
    r"(?P<bare>[^\s\"'<>{}$\\\-][^\s\"'<>{}$\\]{7,511})",
    re.IGNORECASE,
)
_LINE_HINTS: Final = ("key", "secret", "token", "passw", "pwd", "passphrase", "credential", "auth")


def scrub_text(text: str) -> tuple[str, int]:
    """Return the text with every secret replaced, and how many were; no line is added or lost."""
    counter = _Counter()
    if "PRIVATE KEY" in text:
        text = _PRIVATE_KEY.sub(counter.block, text)
        text = _CUT_PRIVATE_KEY.sub(counter.block, text)
    for hints, form in _TOKENS:
        if any(hint in text for hint in hints):
            text = form.sub(counter.whole, text)
    if "://" in text:
        text = _URL_PASSWORD.sub(counter.group(), text)
        text = _URL_USER.sub(counter.group(_looks_random), text)
        text = _URL_SIGNATURE.sub(counter.group(), text)
    lines = text.split("\n")
    for number, line in enumerate(lines):
        lowered = line.lower()
        if any(hint in lowered for hint in _LINE_HINTS) or "bearer" in lowered:
            lines[number] = _scrub_line(line, counter)
    return "\n".join(lines), counter.count


def scrub_bytes(data: bytes) -> tuple[bytes, int]:
    """Return a text file's bytes with every secret replaced; what is not text stays as it is."""
    encoding, errors = "utf-8", "surrogateescape"
    if data[:2] in {b"\xff\xfe", b"\xfe\xff"}:
        encoding, errors = "utf-16-le" if data[:1] == b"\xff" else "utf-16-be", "surrogatepass"
    elif NOT_TEXT in data:
        return data, 0
    try:
        text, count = scrub_text(data.decode(encoding, errors))
    except UnicodeDecodeError:
        return data, 0
    return (text.encode(encoding, errors), count) if count else (data, 0)


def scrub_argv(argv: Sequence[str]) -> list[str]:
    """Return a command's arguments with the values of secret options masked, as valid text."""
    clean: list[str] = []
    option = ""  # the secret option whose value comes next
    for argument in argv:
        if option and not argument.startswith("--"):
            clean.append(argument if _is_harmless(option, argument) else REMOVED)
            option = ""
            continue
        name, equals, value = argument.partition("=")
        secret = _is_secret_argument(name, value if equals else None)
        option = name if secret and not equals else ""
        if secret and value and not _is_harmless(name, value):
            clean.append(f"{valid_text(name)}={REMOVED}")
        else:
            clean.append(valid_text(scrub_text(argument)[0]))
    return clean


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
    return {key: _scrub_value(value, str(key)) for key, value in params.items()}


def is_secret_file(name: str) -> bool:
    """Say whether a file's name, or path, tells that it holds secrets."""
    *folders, base = name.replace("\\", "/").lower().split("/")
    if base.endswith((".pub", ".example", ".sample", ".template", ".dist")):
        return False
    return (
        _SECRET_FILE.fullmatch(base) is not None
        or not _SECRET_FOLDERS.isdisjoint(folders)
        or (base == "config.json" and folders[-1:] == [".docker"])
    )


def valid_text(text: str) -> str:
    r"""Return the text with what is not valid Unicode written as `\udcff`."""
    return text.encode("utf-8", "backslashreplace").decode()


_SECRET_FOLDERS: Final = frozenset({".ssh", ".aws", ".gnupg", ".kube", ".azure", ".gcloud"})
_SECRET_FILE: Final = re.compile(
    r"\.env(?:rc|\..+|-.+|_.+)?|.+\.env|id_(?:rsa|dsa|ecdsa|ed25519)(?:[._\-].*)?"
    r"|.+\.(?:pem|p12|pfx|key|keystore|jks|kdbx|ppk|p8|tfvars|tfstate|agekey|ovpn)"
    r"|[._]netrc|\.pypirc|\.npmrc|\.yarnrc|\.git-credentials|\.pgpass|\.my\.cnf|\.htpasswd"
    r"|\.dockercfg|\.dockerconfigjson|\.vault-token|\.boto|\.s3cfg|\.renviron|rclone\.conf"
    r"|kubeconfig|.+\.kubeconfig"
    r"|(?:.+[._\-])?(?:credentials?|secrets?)(?:\.(?:json|ya?ml|toml|ini|cfg|conf|csv|txt|xml))?"
    r"|client_secrets?.*\.json|(?:.+[_\-])?service[_\-]account.*\.json|kaggle\.json"
)


class _Counter:
    """Counts what the replacing functions that it makes have replaced."""

    def __init__(self) -> None:
        self.count = 0

    def whole(self, match: re.Match[str]) -> str:
        """Replace the match."""
        self.count += 1
        return REMOVED

    def block(self, match: re.Match[str]) -> str:
        """Replace a block of lines that holds a key, keeping its line ends."""
        if _LONG_RUN.search(match.group()) is None:
            return match.group()
        self.count += 1
        return REMOVED + "".join(char for char in match.group() if char in "\r\n")

    def group(self, is_secret: Callable[[str], bool] | None = None) -> Replace:
        """Return what replaces the first group of a match, if it is a secret."""

        def replace(match: re.Match[str]) -> str:
            if match.group(1) == REMOVED or (is_secret and not is_secret(match.group(1))):
                return match.group()
            return self.span(match, 1)

        return replace

    def assigned(self, match: re.Match[str]) -> str:
        """Replace the value that a secret name is given."""
        groups = match.groupdict()
        which = "quoted" if groups.get("quoted") is not None else "bare"
        value = groups[which]
        quoted = which == "quoted" or match.re is _OPTION
        if re.fullmatch(_PASSWORD, match.group("name"), re.IGNORECASE) and quoted:
            secret = _looks_chosen(value)
        else:
            secret = len(value) >= 16 and _looks_random(value)
        return self.span(match, which) if secret else match.group()

    def span(self, match: re.Match[str], group: int | str) -> str:
        """Replace one group of the match."""
        self.count += 1
        start, end = (place - match.start() for place in match.span(group))
        return match.group()[:start] + REMOVED + match.group()[end:]


def _scrub_line(line: str, counter: _Counter) -> str:
    line = _ASSIGNED.sub(counter.assigned, line)
    line = _OPTION.sub(counter.assigned, line)
    return _BEARER.sub(counter.group(_looks_random), line)


def _looks_random(value: str) -> bool:
    """Say whether letters and digits alternate as in a token, and not as in a name of words."""
    kinds = [_kind(char) for char in value if char not in "_-./=+"]
    if "digit" not in kinds or not {"upper", "lower"} & set(kinds):
        return False
    # A capital begins a word: it is not counted before a small letter.
    switches = sum(
        left != right and (left, right) != ("upper", "lower") for left, right in pairwise(kinds)
    )
    return switches >= 0.2 * len(kinds) and len(set(value)) >= 8


def _looks_chosen(value: str) -> bool:
    """Say whether a literal is likely a password, and not the word for one."""
    mixed = any(not char.isalpha() and char not in "_-." for char in value)
    return mixed and len(set(value)) >= 6 and value != REMOVED


def _kind(char: str) -> str:
    if char.isdigit():
        return "digit"
    return "upper" if char.isupper() else "lower"


def _is_secret_argument(name: str, value: str | None) -> bool:
    """Say whether `--name value` or `name=value` carries a secret."""
    option = name.startswith("-")
    if not option and value is None:
        return False
    if _STRONG_NAME.search(name):
        return True
    if _WEAK_NAME.search(name.lstrip("-")) is None:
        return False
    return option or (value is not None and _looks_random(value))


def _is_harmless(name: str, value: str) -> bool:
    """Say whether it is a number, or yes or no, under a name that is no sure sign of a secret."""
    if _STRONG_NAME.search(name):
        return False
    words = {"true", "false", "yes", "no", "none", "on", "off"}
    return value.lower() in words or re.fullmatch(r"[+\-]?\d{1,7}(?:\.\d{0,7})?", value) is not None


def _is_signature(part: str) -> bool:
    name = part.partition("=")[0].lower()
    return (
        name in {"sig", "signature", "awsaccesskeyid", "googleaccessid"}
        or name.endswith(("-signature", "-credential", "-security-token"))
        or _STRONG_NAME.search(name) is not None
        or _WEAK_NAME.search(name) is not None
    )


def _scrub_value(value: object, name: str) -> object:
    strong = _STRONG_NAME.search(name) is not None
    if isinstance(value, Mapping):
        return {
            key: _scrub_value(item, name if strong else str(key)) for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        items = [_scrub_value(item, name) for item in value]
        return items if isinstance(value, list) else tuple(items)
    if value is None or isinstance(value, bool) or not (strong or isinstance(value, str)):
        return value
    if strong:
        return REMOVED if value not in ("", b"") else value
    text = str(value)
    weak = _WEAK_NAME.search(name) and len(text) >= 16 and _looks_random(text)
    return REMOVED if weak else scrub_text(text)[0]
