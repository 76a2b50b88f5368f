"""A record says where secrets were, never what, and a reproduction asks for their values."""

import json
import sys
from pathlib import Path

import pytest

from cas.errors import RefusedError
from cas.objects.document import document
from cas.tracking import reproduce
from cas.tracking.privacy.noting import noting
from cas.tracking.privacy.redacted import (
    Missing,
    by_place,
    give_back,
    given_argv,
    insist_on,
    is_exact,
    missing,
    report,
)
from cas.tracking.privacy.secrets import NAMED, REMOVED, UNKNOWN, scrub_file, scrub_text
from tests.support.runs import (
    CAS,
    cas,
    eventually,
    everything,
    killed,
    only_run,
    opened,
    python,
    script,
    started,
    text,
)

TOKEN = "ghp_" + "aB3dE5fG7hJ9kL1mN2pQ4rS6tU8vW0xY1zA2"
HEX = "3f9a1c7e5b2d8064" + "a1b2c3d4e5f60718" + "9c8d7e6f"
CODE = f'''\
note = "[secret removed]"  # as it reads afterwards
os.environ["WANDB_API_KEY"] = "{HEX}"
hub.token = "{TOKEN}"; login("{TOKEN}"); login("{TOKEN[:30]}{TOKEN[4:30]}")
token = "{TOKEN}"; token = "{TOKEN[:20]}{TOKEN[4:30]}"; api_key = "{HEX}"
'''


def test_each_secret_is_told_with_line_kind_and_variable_and_never_as_it_was() -> None:
    clean, taken = scrub_file(CODE.encode())
    argv = ["train.py", "--hub-token", REMOVED, f"--api-key={REMOVED}", REMOVED]
    known = {
        "command.json": {"argv": argv, "kind": "script"},
        "params.json": {"opt": {"api_key": REMOVED, "lr": 1}, "urls": [f"https://{REMOVED}@h"]},
        "notes.json": {"labels": ["fine"]},
    }
    whole = report({b"src/train.py": taken}, known)
    told = whole["taken"]
    assert HEX not in json.dumps(told)
    assert TOKEN not in json.dumps(told)
    keys = ("where", "line", "variable", "key")
    assert [tuple(map(one.get, keys)) for one in told] == [
        ("code/src/train.py", 2, "WANDB_API_KEY", None),
        ("code/src/train.py", 3, "TOKEN", None),
        ("code/src/train.py", 3, "CAS_SECRET_1", None),
        ("code/src/train.py", 3, "CAS_SECRET_2", None),
        ("code/src/train.py", 4, "TOKEN", None),
        ("code/src/train.py", 4, "TOKEN_2", None),
        ("code/src/train.py", 4, "API_KEY", None),
        ("command.json", None, "HUB_TOKEN", None),
        ("command.json", None, "API_KEY_2", None),
        ("command.json", None, "CAS_SECRET_3", None),
        ("params.json", None, None, "opt.api_key"),
        ("params.json", None, None, "urls[0]"),
    ]  # fmt: skip
    assert [one["place"] for one in told[:3]] == [1, 2, 3]
    assert told[1]["kind"] == "GitHub token"
    assert document(whole)
    assert not is_exact(whole)
    assert is_exact(report({}, known))
    assert report({}, {}) == {}
    assert clean.count(REMOVED.encode()) == 8


def test_values_go_back_to_where_they_were(tmp_path: Path) -> None:
    for name, encoding in (("a.py", "utf-8"), ("b.py", "utf-16")):
        (tmp_path / name).write_bytes(CODE.encode(encoding))
    taken = {}
    for path in sorted(tmp_path.iterdir()):
        clean, found = scrub_file(path.read_bytes())
        path.write_bytes(clean)
        taken[path.name.encode()] = found
    needed = missing(report(taken, {"command.json": {"argv": ["x", "--token", REMOVED, "y"]}}))
    environ = {"WANDB_API_KEY": HEX, "API_KEY": HEX, "TOKEN": TOKEN, "TOKEN_3": "given"}
    environ |= {"TOKEN_2": TOKEN[:20] + TOKEN[4:30], "CAS_SECRET_1": TOKEN}
    environ |= {"CAS_SECRET_2": TOKEN[:30] + TOKEN[4:30]}
    insist_on(needed, environ)
    give_back(tmp_path, needed, environ)
    assert (tmp_path / "a.py").read_bytes() == CODE.encode()
    assert (tmp_path / "b.py").read_bytes() == CODE.encode("utf-16")
    assert given_argv(["py", "x", "--token", REMOVED, "y"], needed, environ) == [
        "py", "x", "--token", "given", "y"
    ]  # fmt: skip


def test_what_is_missing_is_named() -> None:
    needed = [Missing("a.py", 3, 0, "npm token", "NPM"), Missing(None, 0, 1, "x", "KEY")]
    insist_on(needed, {"NPM": "a", "KEY": "b"})
    with pytest.raises(RefusedError, match=r"a.py:3 \(npm token\): NPM$"):
        insist_on(needed, {"NPM": "", "KEY": "b"})
    with pytest.raises(RefusedError, match=r"and 2 more"):
        insist_on([Missing("a.py", n, n, "x", f"V{n}") for n in range(7)], {})


@pytest.mark.parametrize(
    "told", [None, 3, {"taken": 3}, {"taken": [3, {"where": "code/a"}, {"where": 1, "place": 2}]}]
)
def test_a_report_that_makes_no_sense_asks_for_nothing(told: object) -> None:
    assert missing(told) == ()


def test_a_file_that_is_not_there_or_leads_away_is_left_alone(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text(REMOVED)
    (tmp_path / "top").mkdir()
    (tmp_path / "top" / "link").symlink_to(outside)
    wanted = [Missing(name, 1, 0, "x", "V") for name in ("gone", "link")]
    give_back(tmp_path / "top", wanted, {"V": "value"})
    assert outside.read_text() == REMOVED


def test_a_reproduction_takes_the_values_from_the_environment_or_stops(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(
        f'import sys\nimport cas\nhub_token = "{TOKEN}"\n'
        'with cas.track("x", name="a", seed=0) as run:\n'
        '    run.log_metrics({"n": len(hub_token), "m": len(sys.argv[2])})\n'
    )
    python(tmp_path, "train.py", "--api-key", HEX)
    repo = opened(tmp_path)
    id, commit = only_run(repo)
    assert f'hub_token = "{REMOVED}"' in text(repo, commit, "code/train.py")
    told = repo.document(commit.tree, "redacted.json")
    assert isinstance(told, dict)
    assert [(one["where"], one["variable"]) for one in told["taken"]] == [
        ("code/train.py", "HUB_TOKEN"), ("command.json", "API_KEY")
    ]  # fmt: skip
    with pytest.raises(RefusedError, match=r"train.py:3 .*: HUB_TOKEN; the command .*: API_KEY"):
        reproduce.plan(repo, id)
    env = {"HUB_TOKEN": TOKEN, "API_KEY": HEX}
    done = cas(tmp_path, "reproduce", "x/a", env=env)
    assert "identical" in done.stdout + done.stderr
    assert TOKEN not in done.stdout + done.stderr
    assert HEX not in done.stdout + done.stderr
    shown = cas(tmp_path, "show", "x/a")
    assert "not exact" in shown.stdout
    assert "secrets taken out at train.py:3" in shown.stdout
    again = cas(tmp_path, "reproduce", "x/a", env=env | {"HUB_TOKEN": "short"}, code=None)
    assert "diverged" in again.stdout + again.stderr


def test_what_a_program_prints_and_dies_of_is_told_too(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(
        "import os\nimport cas\n"
        'with cas.track("x", name="a", seed=0) as run:\n'
        '    raise ValueError(os.environ["LATE"])\n'
    )
    (tmp_path / "say.py").write_text(
        'import os\nfor n in range(150):\n    print(n, os.environ["LATE"])\n'
    )
    python(tmp_path, "train.py", env={"LATE": TOKEN}, code=1)
    repo = opened(tmp_path)
    _, commit = only_run(repo)
    told = repo.document(commit.tree, "redacted.json")
    lines = text(repo, commit, "traceback.txt").count("\n")
    assert told == {"taken": [{"where": "traceback.txt", "line": lines, "kind": "GitHub token"}]}
    assert is_exact(told)
    cas(tmp_path, "run", "--", sys.executable, "say.py", env={"LATE": TOKEN})
    refs = opened(tmp_path).root.refs
    id = next(id for ref, id in refs.items() if ref.startswith("runs/say/"))
    last = repo.document(opened(tmp_path).commit(id).tree, "redacted.json")
    assert isinstance(last, dict)
    assert last["taken"][99] == {"where": "log.txt", "line": 100, "kind": "GitHub token"}
    assert last["taken"][100:] == [{"where": "log.txt", "more": 50}]


SAID = """
from cas.errors import TrackingError
T = os.environ["LATE"]
with cas.track("x", name="a", seed=0) as run:
    run.log_params({"opt": {"a": T}, "list": [T, T]})
    run.add_metadata({"m": T})
    run.add_label(T)
    run.notes(f"by {T}")
    run.alert("title", f"text {T}")
    run.log_text("t", f"{T} {T}")
    run.log_text("t", T, step=1)
    run.log({"nested": {"text": T}})
    run.log_table("frame", {"c": [T, "x"], "n": [1, 2]})
    run.log_confusion_matrix("m", matrix=[[1]], labels=[T])
    run.log_artifact({"k": T}, name="plain")
    run.track_dataset({"x": [1.0]}, name="d", metadata={"m": T}, split=T)
    run.log_text("clean", "nothing here")
    if len(sys.argv) > 1:
        time.sleep(1.5)
        os.kill(os.getpid(), 9)
"""
TOLD = [
    ("artifacts/plain", 1),
    ("events.json", 1),
    ("logged/confusion_matrix/m", 1),
    ("logged/table/frame", 1),
    ("logged/text/nested/text", 1),
    ("logged/text/t", 3),
    ("metadata.json", 1),
    ("notes.json", 2),
    ("params.json", 3),
    ("parents", 2),
]


def test_what_is_said_while_it_runs_is_told_with_its_kind_and_how_often(tmp_path: Path) -> None:
    script(tmp_path, SAID)
    python(tmp_path, "train.py", env={"LATE": TOKEN})
    repo = opened(tmp_path)
    _, commit = only_run(repo)
    told = repo.document(commit.tree, "redacted.json")
    assert told == {
        "taken": [{"where": where, "kind": "GitHub token", "count": n} for where, n in TOLD]
    }
    assert is_exact(told)
    shown = cas(tmp_path, "show", "x/a").stdout
    assert "redacted  1 in artifacts/plain, 1 in events.json" in shown
    assert "not exact" not in shown


def test_a_run_that_is_killed_tells_the_same(tmp_path: Path) -> None:
    script(tmp_path, SAID)
    python(tmp_path, "train.py", "die", env={"LATE": TOKEN}, code=-9)
    cas(tmp_path, "recover")
    repo = opened(tmp_path)
    _, commit = only_run(repo)
    assert by_place(repo.document(commit.tree, "redacted.json")) == dict(TOLD)
    assert TOKEN.encode() not in everything(repo)


def test_a_log_of_a_killed_run_tells_where(tmp_path: Path) -> None:
    (tmp_path / "say.py").write_text(
        "import os, time\nprint(os.environ['LATE'], flush=True)\nopen('ready', 'w')\n"
        "time.sleep(60)\n"
    )
    child = started(tmp_path, CAS, "run", "--", sys.executable, "say.py", LATE=TOKEN)
    eventually((tmp_path / "ready").exists)
    logs = (opened(tmp_path).path / "journals").glob("*.log")
    log = next(iter(logs))
    eventually(lambda: log.read_text() == f"{REMOVED}\n", "the line")
    killed(child)
    cas(tmp_path, "recover")
    repo = opened(tmp_path)
    _, commit = only_run(repo)
    told = repo.document(commit.tree, "redacted.json")
    assert told == {"taken": [{"where": "log.txt", "line": 1, "kind": "secret"}]}


@pytest.mark.parametrize("told", [None, 3, {"taken": 3}, {"taken": [3, {"where": 1}]}])
def test_places_of_a_report_that_makes_no_sense_are_none(told: object) -> None:
    assert by_place(told) == {}


def test_places_are_added_up() -> None:
    more = [{"where": "a"}, {"where": "a", "count": 3}, {"where": "b", "more": 5}]
    assert by_place({"taken": more}) == {"a": 4, "b": 5}


def test_only_a_name_that_says_so_is_given_as_the_reason() -> None:
    known = {"params.json": {"a": REMOVED, "api_key": [REMOVED]}}
    kinds = {one["key"]: one["kind"] for one in report({}, known)["taken"]}
    assert kinds == {"a": UNKNOWN, "api_key[0]": NAMED}


def test_only_who_asks_is_told_and_the_inner_one_first() -> None:
    with noting() as outer:
        scrub_text(TOKEN)
        with noting() as inner:
            scrub_text(f"{TOKEN} {TOKEN}")
    scrub_text(TOKEN)
    assert (dict(outer), dict(inner)) == ({"GitHub token": 1}, {"GitHub token": 2})


def test_what_is_said_later_of_a_run_follows_its_own_rules(tmp_path: Path) -> None:
    script(tmp_path, 'cas.track("x", name="a", config={"redaction": {"pii": True}}).finish()\n')
    python(tmp_path, "train.py")
    cas(tmp_path, "note", "x/a", "ask jane@example.org")
    cas(tmp_path, "label", "x/a", "of jane@example.org")
    assert cas(tmp_path, "note", "x/a").stdout == f"ask {REMOVED}\n"
    assert cas(tmp_path, "label", "x/a").stdout == f"of {REMOVED}\n"
    assert b"jane@" not in everything(opened(tmp_path))


def test_without_the_code_the_rest_is_told_all_the_same(tmp_path: Path) -> None:
    script(tmp_path, 'cas.track("x", name="a", params={"p": os.environ["LATE"]}).finish()\n')
    python(tmp_path, "train.py", env={"LATE": TOKEN, "CAS_CAPTURE": "-code"})
    repo = opened(tmp_path)
    _, commit = only_run(repo)
    assert repo.lookup(commit.tree, b"code") is None
    told = repo.document(commit.tree, "redacted.json")
    assert told == {"taken": [{"where": "params.json", "kind": "secret", "key": "p"}]}
