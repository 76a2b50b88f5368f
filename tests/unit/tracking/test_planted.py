"""Five hundred secrets in every captured place: none is in what is stored."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cas.objects.kind import Kind
from cas.repo.repo import Repo
from cas.store.pack import walk
from cas.tracking.privacy.secrets import REMOVED, scrub_text
from tests.support.planted import Planted, harmless, planted
from tests.support.runs import cas, only_run, opened, run, text

SECRETS = planted(500)
PIECE = 12  # characters in a row that give a secret away

TRAIN = """\
import sys
import cas

texts = open("texts.txt", newline="").read().split("\\0")
with cas.track(
    params={f"p{number}": text for number, text in enumerate(texts)},
    notes="\\n".join(texts),
    group=texts[3],
) as run:
    for text in texts:
        print(text)
        print(text, file=sys.stderr)
    run.track_dataset({"x": [1.0]}, name="d", metadata={f"m{n}": t for n, t in enumerate(texts)})
    run.log_metrics({"loss": 1.0})
    raise ValueError("\\n".join(texts))
"""


def pieces(one: Planted) -> Iterator[str]:
    """Yield what would give a secret away: a stretch from the middle of each of its lines."""
    for line in one.secret.splitlines():
        middle = len(line) // 2
        if not line.startswith("-----"):
            yield line[middle - PIECE // 2 : middle + PIECE // 2]


def stored(repo: Repo) -> Iterator[tuple[str, bytes]]:
    """Yield every record of the repository, decoded, and every file outside the packs."""
    for info in repo.refresh().packs:
        for _, header in walk(repo.backend, info, info.length):
            yield f"{Kind(header.kind).name} {header.id}", repo.store.read(header.kind, header.id)
    for path in sorted(repo.path.rglob("*")):
        if path.is_file() and "packs" not in path.parts:
            yield str(path), path.read_bytes()


def leaked(repo: Repo) -> list[tuple[str, str]]:
    everything = [(where, data.decode("latin-1")) for where, data in stored(repo)]
    assert sum(len(data) for _, data in everything) > 100_000
    found = []
    for one in SECRETS:
        for piece in pieces(one):
            found += [(where, one.text[:40]) for where, data in everything if piece in data]
    return found


def project(folder: Path) -> Path:
    """Make a project whose code, diff, notebook and config hold the secrets."""
    texts = [one.text for one in SECRETS]
    (folder / "texts.txt").write_text("\0".join(texts), newline="")
    (folder / ".gitignore").write_text("texts.txt\n.cas/\n")
    (folder / "train.py").write_text(TRAIN)
    run(folder, "git", "init", "-q")
    lines = [f"v{number} = {text!r}" for number, text in enumerate(texts)]
    (folder / "tracked.py").write_text("\n".join(lines[:250]))
    run(folder, "git", "add", ".")
    who = ("-c", "user.name=A", "-c", "user.email=a@example.org")
    run(folder, "git", *who, "commit", "-qm", "first")
    (folder / "tracked.py").write_text("\n".join(lines))
    (folder / "config.yaml").write_text("\n".join(texts))
    (folder / "local.ini").write_bytes("\r\n".join(texts).encode("utf-16"))
    (folder / ".env").write_text("\n".join(texts))
    (folder / "change.diff").write_text("\n".join(f"+{text}" for text in texts))
    cells = [{"cell_type": "code", "source": [f"{text}\n"], "outputs": [text]} for text in texts]
    (folder / "look.ipynb").write_text(json.dumps({"cells": cells}, indent=1))
    url = f"https://me:{SECRETS[0].secret}@git.example.org/a.git"
    run(folder, "git", "remote", "add", "origin", url)
    return folder


def test_none_of_them_is_stored(tmp_path: Path) -> None:
    folder = project(tmp_path)
    words = [one.text for one in SECRETS if "\n" not in one.text]
    spaced = [word for text in words for word in text.split(" ")]
    env = {f"NCCL_P{number}": one.text for number, one in enumerate(SECRETS[::5])}
    done = cas(folder, "run", "--", sys.executable, "train.py", *spaced, code=None, env=env)
    assert done.returncode == 1, done.stderr
    repo = opened(folder)
    _, commit = only_run(repo)
    assert commit.status == "failed"
    # Each of the places was captured, with its secrets replaced.
    for path in ("code/tracked.py", "code/config.yaml", "code/change.diff", "code/look.ipynb"):
        assert text(repo, commit, path).count(REMOVED) >= 490, path
    assert text(repo, commit, "log.txt").count(REMOVED) >= 980
    assert text(repo, commit, "notes.json").count(REMOVED) >= 490
    assert text(repo, commit, "params.json").count(REMOVED) >= 490
    assert text(repo, commit, "environment.json").count(REMOVED) >= 95
    assert text(repo, commit, "command.json").count(REMOVED) >= 400
    assert leaked(repo) == []
    assert repo.lookup(commit.tree, b"code/.env") is None


def test_a_search_that_finds_nothing_would_be_noticed(tmp_path: Path) -> None:
    folder = project(tmp_path)
    cas(folder, "init")
    cas(folder, "commit", "-m", "by hand", "config.yaml")  # what a person commits is not filtered
    assert len({text for _, text in leaked(opened(folder))}) >= 100


def test_harmless_strings_stay() -> None:
    strings = harmless(10_000)
    touched = [string for string in strings if scrub_text(string)[1]]
    assert len(touched) <= 0.01 * len(strings), touched[:20]
    together, count = scrub_text("\n".join(strings))
    assert count <= 0.01 * len(strings)
    assert together.count("\n") == len(strings) - 1


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_secrets_go_whatever_their_letters_are(seed: int) -> None:
    for one in planted(500, seed):
        clean, _ = scrub_text(one.text)
        assert not [piece for piece in pieces(one) if piece in clean], one.text
