"""What the filter for secrets finds, what it touches without need, and what it costs.

    .venv/bin/python -m benchmarks.bench_secrets [--peers]

500 secrets of a hundred known formats and 10,000 harmless strings, made by
`tests/support/planted.py`; and Python's own code, put together to 1 MB. A secret is *gone* when no
12 characters in a row of the middle of any of its lines are left once everything that was found is
taken out, and *told* when anything at all was found in its text: that is all that a scanner which
points a person at lines is made for. With `--peers` detect-secrets looks at the same: as a file,
with all of its plugins and without those for high entropy, and each line as a string by itself. It
is installed into `.bench/secrets` when it is missing. Times are CPU seconds of one process, import
not included; of cas the least of 3.
"""

import json
import subprocess
import sys
import sysconfig
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cas.tracking.privacy.secrets import find, scrub_bytes
from tests.support.planted import Planted, harmless, planted

ROOT = Path(__file__).parents[1]
PEERS = ROOT / ".bench" / "secrets"
PEER_PYTHON = PEERS / "bin" / "python"
WANTED = "detect-secrets==1.5.0"
SECRETS, HARMLESS = 500, 10_000
CODE_BYTES = 1_000_000
PIECE = 12
ROUNDS = 3
KINDS = ("all", "no-entropy", "strings")
GOAL = f"goal: {SECRETS} of {SECRETS} gone, {HARMLESS // 100} of {HARMLESS} touched, 0.1 s per MB"


def give_aways(one: Planted) -> list[str]:
    """Return the stretches of a secret of which none may be left."""
    lines = [line for line in one.secret.splitlines() if not line.startswith("-----")]
    return [line[len(line) // 2 - PIECE // 2 : len(line) // 2 + PIECE // 2] for line in lines]


def is_gone(one: Planted, detected: Sequence[str]) -> bool:
    """Say whether a secret is gone once what was detected in its text is taken out."""
    left = one.text
    for value in sorted(filter(None, detected), key=len, reverse=True):
        left = left.replace(value, "")
    return not any(piece in left for piece in give_aways(one))


def code() -> bytes:
    """Return Python's own library as one text."""
    paths = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    return b"".join(path.read_bytes() for path in paths)[:CODE_BYTES]


def own(texts: Sequence[str], data: bytes) -> dict[str, Any]:
    """Return what cas detects in each text, and what a long one costs."""
    found = [[text[one.start : one.end] for one in find(text)] for text in texts]
    seconds = []
    for _ in range(ROUNDS):
        began = time.process_time()
        scrub_bytes(data)
        seconds.append(time.process_time() - began)
    return {"found": found, "seconds": min(seconds)}


def peer(kind: str, texts: Sequence[str], data: bytes) -> dict[str, Any] | None:
    """Return the same of detect-secrets, which looks at files; None when it cannot be had."""
    script = str(ROOT / "benchmarks" / "peer_secrets.py")
    lines = [(number, line) for number, text in enumerate(texts) for line in text.splitlines()]
    with TemporaryDirectory() as folder:
        places = Path(folder, "texts.txt"), Path(folder, "code.py")
        places[0].write_text("".join(f"{line}\n" for _, line in lines))
        places[1].write_bytes(data)
        command = [str(PEER_PYTHON), script, kind, *map(str, places)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return None
    answer = json.loads(done.stdout)
    found: list[list[str]] = [[] for _ in texts]
    for number, value in answer["found"]:
        found[lines[number - 1][0]].append(value)
    return {"found": found, "seconds": answer["seconds"]}


def install() -> str:
    """Make the venv of the peer when it is missing; return why that did not work."""
    if PEER_PYTHON.exists():
        return ""
    PEERS.parent.mkdir(exist_ok=True)
    for command in (
        (sys.executable, "-m", "venv", str(PEERS)),
        (str(PEER_PYTHON), "-m", "pip", "install", "--quiet", WANTED),
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            return done.stderr.strip().split("\n")[-1]
    return ""


def row(answer: dict[str, Any], secrets: Sequence[Planted], size: int) -> tuple[int, ...]:
    """Return how many secrets are gone and told, and harmless strings touched; ms per MB."""
    of_secrets, of_harmless = answer["found"][: len(secrets)], answer["found"][len(secrets) :]
    gone = sum(is_gone(one, values) for one, values in zip(secrets, of_secrets, strict=True))
    told, touched = (sum(map(bool, found)) for found in (of_secrets, of_harmless))
    return gone, told, touched, round(answer["seconds"] / size * 1e9)


def main() -> None:
    wanted = "--peers" in sys.argv[1:]
    problem = install() if wanted else ""
    secrets = planted(SECRETS)
    texts = [one.text for one in secrets] + harmless(HARMLESS)
    data = code()
    answers: dict[str, dict[str, Any] | None] = {"cas": own(texts, data)}
    for kind in KINDS if wanted and not problem else ():
        answers[f"{WANTED}, {kind}"] = peer(kind, texts, data)
    print(f"{SECRETS} secrets, {HARMLESS} harmless strings, {len(data) / 1e6:.1f} MB of code")
    for name, answer in answers.items():
        if answer is None:
            print(f"  {name:<34} could not be had")
            continue
        gone, told, touched, cost = row(answer, secrets, len(data))
        print(f"  {name:<34} gone {gone:4} told {told:4} touched {touched:6,} {cost:6,} ms per MB")
    print(GOAL)
    if problem:
        print(f"  peer: {problem}")


if __name__ == "__main__":
    main()
