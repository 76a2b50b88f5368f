"""Five hundred secrets in every captured place: none is in what is stored."""

import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cas.objects.commit import Commit
from cas.objects.kind import Kind
from cas.repo.repo import Repo
from cas.store.pack import walk
from cas.tracking.privacy.redacted import by_place
from cas.tracking.privacy.secrets import REMOVED, scrub_text
from cas.tracking.view import RunView
from tests.support.planted import Planted, harmless, planted
from tests.support.runs import (
    CAS,
    cas,
    eventually,
    only_run,
    opened,
    run,
    started,
    text,
)

SECRETS = planted(500)
PIECE = 12  # characters in a row that give a secret away

TRAIN = """\
import io
import os
import sys
import time
import numpy as np
import cas
from cas.errors import CasError
from cas.repo.annotations import check_label

texts = open("texts.txt", newline="").read().split("\\0")
whole = "\\n".join(texts)


def is_label(text):
    try:
        return bool(check_label(text))
    except CasError:
        return False


labels = list(filter(is_label, texts))
with cas.track(
    params={f"p{number}": text for number, text in enumerate(texts)},
    notes=whole,
    group=texts[3],
    labels=labels[::2],
) as run:
    for text in texts:
        print(text)
        print(text, file=sys.stderr)
    sys.stdout.flush()
    run.log_params({"more": {"deep": texts}})
    run.add_metadata({"deep": texts})
    run.add_label(*labels[1::2])
    run.notes(whole, append=True)
    run.alert(texts[5], whole)
    for number, text in enumerate(texts[::10]):
        run.alert(text)
        run.log_text("small", text, step=number)
    run.log_text("whole", whole)
    run.log_text("page", "<p>" + "</p><p>".join(texts), format="html")
    run.log_table("columns", {"text": texts, "n": list(range(len(texts)))})
    run.log_table("rows", [{"nested": {"text": text}} for text in texts])
    run.log_confusion_matrix("matrix", matrix=[[1, 0], [0, 1]], labels=texts[:2])
    run.log_embedding("vectors", np.zeros((len(texts), 2)), labels=texts, metadata={"m": texts})
    boxes = [{"label": text} for text in texts]
    run.log_image("image", np.zeros((4, 4)), caption=whole, boxes=boxes)
    run.log_artifact(io.StringIO(whole), name="written")
    run.log_artifact({"texts": texts}, name="plain")
    run.track_dataset({"x": [1.0]}, name="d", metadata={f"m{n}": t for n, t in enumerate(texts)})
    run.log_metrics({"loss": 1.0})
    time.sleep(1.5)  # as long as what is logged may wait
    open("ready", "w").close()
    while not os.path.exists("go"):
        time.sleep(0.05)
    raise ValueError(whole)
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
    named = [one.secret for one in SECRETS if one.secret.startswith("hf_")]
    run(folder, "git", "init", "-q", "-b", f"b-{named[0]}")
    lines = [f"v{number} = {text!r}" for number, text in enumerate(texts)]
    (folder / "tracked.py").write_text("\n".join(lines[:250]))
    run(folder, "git", "add", ".")
    who = ("-c", "user.name=A", "-c", "user.email=a@example.org")
    run(folder, "git", *who, "commit", "-qm", named[1])
    run(folder, "git", "tag", f"t-{named[2]}")
    (folder / f"tracked-{named[3]}.py").write_text("")
    run(folder, "git", "add", ".")
    (folder / "tracked.py").write_text("\n".join(lines))
    (folder / "config.yaml").write_text("\n".join(texts))
    (folder / "local.ini").write_bytes("\r\n".join(texts).encode("utf-16"))
    (folder / ".env").write_text("\n".join(texts))
    (folder / ".dvc").mkdir()
    (folder / ".dvc" / "config").write_text("['remote']\n" + "\n".join(texts))
    alone = next(one.secret for one in SECRETS if one.secret.startswith("ghp_"))
    (folder / f"{alone}.py").write_text("")
    (folder / "link").symlink_to(f"https://host/{alone}")
    (folder / "change.diff").write_text("\n".join(f"+{text}" for text in texts))
    cells = [{"cell_type": "code", "source": [f"{text}\n"], "outputs": [text]} for text in texts]
    (folder / "look.ipynb").write_text(json.dumps({"cells": cells}, indent=1))
    url = f"https://me:{SECRETS[0].secret}@git.example.org/a.git"
    run(folder, "git", "remote", "add", "origin", url)
    return folder


WHOLE = len(SECRETS) - 10  # marks that take a whole text's place count once for several secrets


def counted(repo: Repo, commit: Commit) -> dict[str, int]:
    """Return how much a record says is missing in it, by place."""
    return by_place(repo.document(commit.tree, "redacted.json"))


def test_none_of_them_is_stored(tmp_path: Path) -> None:
    folder = project(tmp_path)
    words = [one.text for one in SECRETS if "\n" not in one.text]
    spaced = [word for text in words for word in text.split(" ")]
    env = {f"NCCL_P{number}": one.text for number, one in enumerate(SECRETS[::5])}
    child = started(folder, CAS, "run", "--", sys.executable, "train.py", *spaced, **env)
    printed: list[str] = []
    reader = threading.Thread(target=lambda: printed.extend(child.communicate()), daemon=True)
    reader.start()
    eventually(lambda: (folder / "ready").exists() or child.poll() is not None, "the program")
    # While it is open: journals, what was printed so far, drafts, sessions.
    repo = opened(folder)
    assert child.poll() is None, printed
    assert leaked(repo) == []
    journals = sorted((repo.path / "journals").iterdir())
    assert [path.suffix for path in journals].count(".journal") == 2
    marks = {path.suffix: path.read_bytes().count(REMOVED.encode()) for path in journals}
    assert marks[".log"] >= 2 * WHOLE
    joined = max(path.read_bytes().count(REMOVED.encode()) for path in journals)
    assert joined >= 4 * WHOLE
    (folder / "go").touch()
    reader.join(timeout=100)
    assert child.returncode == 1, printed
    repo = opened(folder)
    id, commit = only_run(repo)
    assert commit.status == "failed"
    # Each of the places was captured, with its secrets replaced.
    for path in ("code/tracked.py", "code/config.yaml", "code/change.diff", "code/look.ipynb"):
        assert text(repo, commit, path).count(REMOVED) >= WHOLE, path
    assert text(repo, commit, "events.json").count(REMOVED) >= 200  # each is cut
    for path in ("notes.json", "metadata.json", "artifacts/written"):
        assert text(repo, commit, path).count(REMOVED) >= WHOLE, path
    assert text(repo, commit, "log.txt").count(REMOVED) >= 3 * WHOLE  # the traceback too
    assert text(repo, commit, "params.json").count(REMOVED) >= 2 * WHOLE
    assert text(repo, commit, "environment.json").count(REMOVED) >= 95
    assert text(repo, commit, "command.json").count(REMOVED) >= 400
    assert text(repo, commit, "code/.dvc/config").count(REMOVED) >= WHOLE
    assert leaked(repo) == []
    assert repo.lookup(commit.tree, b"code/.env") is None
    known = RunView(repo, id)
    assert known.logged("whole")[0].value().count(REMOVED) >= WHOLE
    column = known.logged("columns")[0].value().columns["text"]
    assert sum(REMOVED in one for one in column) >= WHOLE
    # And each is told of.
    places = counted(repo, commit)
    for place in ("log.txt", "metadata.json", "events.json", "notes.json", "parents", "params.json",
                  "logged/text/whole", "logged/text/page", "logged/table/columns",
                  "logged/table/rows", "logged/embedding/vectors", "logged/image/image",
                  "artifacts/written", "artifacts/plain", "code/config.yaml"):  # fmt: skip
        assert places[place] >= WHOLE, place
    assert places["logged/confusion_matrix/matrix"] == 2
    assert places["logged/text/small"] == 50
    git = repo.document(commit.tree, "source.json")
    assert isinstance(git, dict)
    assert git["git"]["branch"] == f"b-{REMOVED}"
    assert git["git"]["tags"] == [f"t-{REMOVED}"]
    host = repo.document(commit.tree, "host.json")
    assert isinstance(host, dict)
    assert len([one for one in host["left_out"] if "a secret stands in its name" in one]) == 3


def test_a_script_that_tracks_itself_leaves_none_either(tmp_path: Path) -> None:
    folder = project(tmp_path)
    child = started(folder, sys.executable, "train.py")
    reader = threading.Thread(target=child.communicate, daemon=True)
    reader.start()
    eventually(lambda: (folder / "ready").exists() or child.poll() is not None, "the program")
    assert leaked(opened(folder)) == []
    child.kill()
    reader.join(timeout=100)
    cas(folder, "recover")  # what is rebuilt from its journal has none
    repo = opened(folder)
    _, commit = only_run(repo)
    assert commit.status == "crashed"
    assert leaked(repo) == []
    places = counted(repo, commit)
    for place in ("logged/text/whole", "metadata.json", "events.json", "params.json"):
        assert places[place] >= WHOLE, place


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
