"""What a run is told by a file: what is accepted, what overrides what, and how it goes on."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import cas
from cas.errors import InvalidInputError, NotFoundError
from cas.repo.repo import Repo
from cas.repo.retain.retention import Keep
from cas.tracking.settings import yamlfile
from cas.tracking.settings.config import MAX_DEPTH, Config, in_effect, replaced, resolve
from cas.tracking.settings.configfile import config, passed_on, read
from cas.tracking.settings.configkeys import KEYS

WHOLE = {
    "experiment": "digits",
    "labels": ["baseline", "small"],
    "params": {"training": {"lr": 0.001, "steps": 10}, "model": "mlp"},
    "retention": {"last": 2},
    "environments": {
        "production": {"retention": {"best": 1}, "labels": "live"},
        "testing": {"params": {"training": {"steps": 1}}, "retention": None},
    },
}


def test_an_environment_overrides_key_by_key() -> None:
    plain = resolve(WHOLE)
    assert plain.retention == Keep(last=2)
    assert plain["training.steps"] == 10
    live = resolve(WHOLE, environment="production")
    assert live.retention == Keep(last=2, best=1)
    assert live.words["labels"] == ["live"]
    assert live.words["environment"] == "production"
    test = resolve(WHOLE, environment="testing")
    assert test.params["training"] == {"lr": 0.001, "steps": 1}
    assert test.retention is None
    assert "environments" not in test.words


def test_a_config_may_say_itself_which_environment_it_means() -> None:
    assert resolve({**WHOLE, "environment": "testing"})["training.steps"] == 1
    chosen = resolve({**WHOLE, "environment": "testing"}, environment="production")
    assert chosen["training.steps"] == 10


def test_params_are_looked_up_by_names_joined_with_dots() -> None:
    known = resolve(WHOLE, params={"training.lr": 1e-4, "optimizer.name": "adam"})
    assert known["training.lr"] == 1e-4
    assert known.params["optimizer"] == {"name": "adam"}
    assert known.get("training.momentum", 0.9) == 0.9
    assert known.get("model.depth") is None
    with pytest.raises(NotFoundError, match=r"param training\.momentum"):
        known["training.momentum"]
    assert WHOLE["params"]["training"]["lr"] == 0.001  # type: ignore[index]


@pytest.mark.parametrize(
    ("told", "problem"),
    [
        ({"retension": {}}, "no key 'retension'; there are experiment, "),
        ({"lr": 0.1}, "a program's own values stand below params"),
        ({"experiment": 7}, "experiment: the name of a experiment is text"),
        ({"experiment": "a b"}, "experiment: .*contains ' '"),
        ({"labels": ["a", 5]}, r"labels\[1\]: a label is one line of text"),
        ({"labels": [""]}, r"labels\[0\]: a label has 1 to 100 characters"),
        ({"seed": 0.5}, "seed is a whole number, not 0.5"),
        ({"seed": True}, "seed is a whole number, not True"),
        ({"total": 0}, "total is a whole number from 1"),
        ({"resume": "always"}, "resume is one of never, auto"),
        ({"params": [1]}, "params is a map of names to values"),
        ({"strategy": {"save_step": 5}}, "strategy has no 'save_step'; there are save_steps"),
        ({"strategy": {"save_seconds": 0}}, "strategy: save_seconds is a number of seconds"),
        ({"strategy": {"mode": "up"}}, "strategy: mode is 'min' or 'max', not 'up'"),
        ({"strategy": 5}, "strategy is a map"),
        ({"retention": 3}, "retention is a map of rules"),
        ({"retention": {"lasst": 3}}, "retention: no retention rule 'lasst'; there are last, "),
        ({"redaction": {"pii": ["phones"]}}, r"redaction\.pii: no kind 'phones'; there are email"),
        ({"capture": {"gits": True}}, r"capture: no part 'gits'; there are code, git"),
        ({"capture": {"git": 1}}, r"exp.yaml: capture\.git is true or false"),
        ({"watch": {"jumps": 1}}, r"watch: no rule 'jumps'; there are not_finite"),
        ({"log_every": {"loss": 0}}, r"log_every\.loss is a whole number from 1"),
        ({"system_metrics": -1}, r"system_metrics is a number of seconds"),
        ({"sinks": ["tensorbord"]}, r"sinks\[0\]\.kind is one of jsonl"),
        ({"sinks": [{"path": "x"}]}, r"sinks\[0\]: kind is missing"),
        ({"export": {"folder": "x"}}, "export: to is missing"),
        ({"export": {"to": "xml"}}, r"export\.to is one of json, yaml"),
        ({"environments": {"p": {"sed": 1}}}, r"environments\.p: no key 'sed'"),
        ({"environments": {"p": 5}}, r"environments\.p is a map of settings"),
        ({"environments": [5]}, "environments are maps by name"),
        ({"environment": "p"}, "no environment 'p'; it has no environments"),
        ({"environment": 5, "environments": {"p": {}}}, "no environment 5; there are p"),
        ({5: 1}, "the key 5 is no text"),
        ([1], "is a map of settings"),
    ],
)
def test_an_error_names_the_key_and_what_is_accepted(told: Any, problem: str) -> None:
    with pytest.raises(InvalidInputError, match=problem) as caught:
        resolve(told, "exp.yaml")
    assert str(caught.value).startswith("exp.yaml")


def test_an_environment_that_is_not_chosen_is_checked_too() -> None:
    with pytest.raises(InvalidInputError, match=r"environments\.production: seed is a whole"):
        resolve({"environments": {"production": {"seed": "x"}}})


def test_a_name_below_a_value_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"-p a\.b: a is 1 in the config, not a map"):
        replaced({"a": 1}, {"a.b": 2})
    for name in ("a..b", ".a", "a."):
        with pytest.raises(InvalidInputError, match="parts joined by single dots"):
            replaced({}, {name: 1})


def test_what_never_ends_or_is_too_much_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    deep: Any = 1
    for _ in range(MAX_DEPTH + 1):
        deep = [deep]
    for value in (loop, deep, list(range(100_001))):
        with pytest.raises(InvalidInputError, match="that is data"):
            resolve({"params": {"a": value}})


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(st.text(), plain, max_size=4))
def test_what_was_resolved_once_is_the_same_again(params: Mapping[str, Any]) -> None:
    known = resolve({"params": params, "seed": 3, "labels": "a"})
    assert repr(in_effect(known.words, "").words) == repr(known.words)


@given(plain)
def test_yaml_brings_plain_data_back(value: Any) -> None:
    assert repr(yamlfile.read(yamlfile.write({"x": value}), "x")) == repr({"x": value})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E3", 1000.0),
        ("no", "no"),
        ("on", "on"),
        ("010", 10),
        ("0x1F", 31),
        ("0o17", 15),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("2024-01-02", "2024-01-02"),
        (".5", 0.5),
        ("-.inf", float("-inf")),
        ("True", True),
        ("~", None),
    ],
)
def test_yaml_is_read_as_its_version_1_2(text: str, value: object) -> None:
    found = yamlfile.read(f"x: {text}", "x")["x"]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\na: 2\n", r"^exp.yaml line 2: the key 'a' stands twice, on line 1 too$"),
        ("x: {b: 1}\na:\n  - c: 1\n    d: 1\n    c: 2\n", "line 5: the key 'c' stands twice"),
        ("\ta: 1", "exp.yaml is no YAML: line 1"),
        ("a: b\n\0", r"^exp.yaml is no YAML: line 2: U\+0000 may not stand in it$"),
        ("a: &a {<<: *a}", "exp.yaml"),
        ("a: 1\n---\na: 2", "line 2: but found another document"),
        ("a: !!set {b}", "that is data|no text, number"),
        ("text", "not a map of settings"),
        ("a: [1", "exp.yaml is no YAML: line"),
        ("a: !!python/object/apply:os.system ['true']", "exp.yaml is no YAML: line 1"),
        ("a: &a [*a]", "that is data"),
        ("- 1", "not a map of settings"),
        ("[" * 100_000, "exp.yaml"),
    ],
)
def test_a_file_that_is_no_config_is_refused(here: Path, text: str, problem: str) -> None:
    (here / "exp.yaml").write_text(text)
    with pytest.raises(InvalidInputError, match=problem) as caught:
        config("exp.yaml")
    assert "\n" not in str(caught.value)


def test_a_bomb_of_aliases_is_not_unfolded(here: Path) -> None:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    (here / "exp.yaml").write_text("params:\n" + "".join(f"  {line}\n" for line in lines))
    with pytest.raises(InvalidInputError, match="that is data"):
        config("exp.yaml")


def test_a_bomb_of_merges_is_not_unfolded(here: Path) -> None:
    lines = ["a0: &a0 {x: 1}"]
    lines += [f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}" for n in range(1, 60)]
    (here / "exp.yaml").write_text("params:\n" + "".join(f"  {line}\n" for line in lines))
    with pytest.raises(InvalidInputError, match=r"line \d+: `<<` brings in more than 100,000"):
        config("exp.yaml")


def test_what_a_map_takes_over_is_no_key_that_stands_twice(here: Path) -> None:
    text = "a: &a {x: 1, y: 1}\nouter:\n  inner: &b {<<: *a, x: 2}\nc: {<<: *b, y: 3}\n"
    found = yamlfile.read(text, "x")
    assert (found["outer"], found["c"]) == ({"inner": {"x": 2, "y": 1}}, {"x": 2, "y": 3})


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("a.yaml", "seed: 1\n\nretension: {}\n", "a.yaml line 3: no key 'retension'"),
        ("a.yaml", "labels:\n  - a\n  - 5\n", r"a.yaml line 3: labels\[1\]: a label"),
        ("a.yaml", "watch:\n  jump: 1\n  jmup: 2\n", "a.yaml line 3: watch: no rule 'jmup'"),
        ("a.yaml", "retention:\n  last: 1\n  best: x\n", "a.yaml line 3: retention: "),
        ("a.yaml", "strategy:\n\n  mode: up\n", "a.yaml line 3: strategy: mode is"),
        ("a.yaml", "params:\n  a:\n    2: 1\n", r"a.yaml line 3: params.a: the key 2 is no text"),
        ("a.yaml", "environments:\n  p: 5\n", "a.yaml line 2: environments.p is a map"),
        (
            "a.yaml",
            "seed: 1\nenvironments:\n  p:\n    seed: x\n",
            "a.yaml line 4: environments.p: seed is a whole number",
        ),
        ("a.yaml", "environments: {p: {}}\nenvironment: q\n", "a.yaml line 2: no environment 'q'"),
        (
            "a.json",
            '{"params": {"se\\"ed": [{"x": 1}, "{"]},\n\n"log_every": {"a": 1,\n"b": 0}}',
            r"a.json line 4: log_every\.b is a whole",
        ),
        (
            "a.toml",
            'notes = """\nseed = 1\n"""\n[params]\nseed = 2\n[watch]\njump = 1\njmup = 2\n',
            "a.toml line 8: watch: no rule 'jmup'",
        ),
        ("a.toml", "seed = 1\nexport.to = 'x'\n", r"a.toml line 2: export\.to is one of"),
        ("a.toml", "[[sinks]]\nkind = 'x'\n", r"a.toml line 1: sinks\[0\]\.kind is one of"),
        (
            "pyproject.toml",
            "[project]\nname = 'x'\n[tool.other]\nseed = 1\n[tool.cas]\nseed = 'x'\n",
            "pyproject.toml line 6: seed is a whole number",
        ),
    ],
)
def test_an_error_names_the_line(here: Path, name: str, text: str, problem: str) -> None:
    (here / name).write_text(text)
    with pytest.raises(InvalidInputError, match=f"^{problem}"):
        config(name)


@pytest.mark.parametrize(
    ("told", "meant"),
    [
        ({"retension": {}}, "retention"),
        ({"strategy": {"save_step": 5}}, "save_steps"),
        ({"retention": {"lats": 3}}, "last"),
        ({"capture": {"pakages": True}}, "packages"),
        ({"watch": {"jmup": 1}}, "jump"),
        ({"redaction": {"name": []}}, "names"),
        ({"sinks": [{"kin": "jsonl"}]}, "kind"),
        ({"environment": "prod", "environments": {"production": {}}}, "production"),
    ],
)
def test_what_was_meant_is_named(told: Any, meant: str) -> None:
    with pytest.raises(InvalidInputError, match=rf"did you mean {meant}\?"):
        resolve(told)


def test_lines_are_found_where_much_stands_behind_a_name() -> None:
    text = "params:\n  a: &a {x: 1}\n  b: *a\n  c: {<<: *a}\nseed: x\n"
    found = yamlfile.lines(text)
    assert (found["params", "b"], found["params", "c"], found["seed",]) == (3, 4, 5)
    shared = [path for path in found if path[-1] == "x"]
    assert len(shared) == 1  # it is gone into once


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        (b"", {}),
        (b"# nothing\n", {}),
        (b"\xef\xbb\xbfseed: 1\n", {"seed": 1}),
        (b"seed: 1\r\nnotes: x\r\n", {"seed": 1, "notes": "x"}),
    ],
)
def test_files_as_editors_write_them(here: Path, raw: bytes, found: object) -> None:
    (here / "a.yaml").write_bytes(raw)
    assert config("a.yaml").words == found
    (here / "link.yaml").symlink_to("a.yaml")
    assert config("link.yaml").words == found


def test_an_empty_json_says_nothing_and_a_key_in_it_stands_once(here: Path) -> None:
    (here / "a.json").write_text(" \n")
    assert config("a.json").words == {}
    (here / "a.json").write_text('{"params": {"a": 1, "a": 2}}')
    with pytest.raises(InvalidInputError, match=r"a.json is no JSON: the key 'a' stands twice"):
        config("a.json")


def test_what_can_be_read_by_nobody_is_named(here: Path) -> None:
    (here / "a.yaml").write_bytes(b"seed: 1\nnotes: caf\xe9\n")
    with pytest.raises(InvalidInputError, match=r"a\.yaml line 2: it is not UTF-8"):
        config("a.yaml")
    (here / "large.yaml").write_bytes(b"#" * 2_000_000)
    with pytest.raises(InvalidInputError, match="larger than 1,048,576 bytes"):
        config("large.yaml")
    with pytest.raises(InvalidInputError, match=r"cannot read .*: Is a directory"):
        config(here)
    (here / "broken.yaml").symlink_to("nowhere")
    with pytest.raises(NotFoundError, match=r"config broken\.yaml not found"):
        config("broken.yaml")


def test_json_and_toml_say_the_same(here: Path) -> None:
    (here / "a.json").write_text(json.dumps(WHOLE))
    (here / "a.toml").write_text('experiment = "digits"\n[params]\nday = 2024-01-02\n')
    assert config("a.json") == resolve(WHOLE, "a.json")
    assert config("a.toml").params == {"day": "2024-01-02"}
    assert read(Path("a.json"))[0] == WHOLE
    with pytest.raises(NotFoundError, match="config nope"):
        config("nope.yaml")


def test_the_project_has_a_config_of_its_own(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "pyproject.toml").write_text('[tool.cas]\nexperiment = "of-project"\n')
    below = here / "src"
    below.mkdir()
    (below / "pyproject.toml").write_text("[tool.casual]\na = 1\n")
    monkeypatch.chdir(below)
    assert config().words == {"experiment": "of-project"}
    (below / ".git").mkdir()
    assert config().words == {}
    monkeypatch.setenv("CAS_ENV", "production")
    assert config().words == {}
    with pytest.raises(InvalidInputError, match="no environment 'x': there is no config"):
        config(environment="x")
    with pytest.raises(InvalidInputError, match="no environment 'production'"):
        config(here / "pyproject.toml")


def test_the_surroundings_name_file_and_environment(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "a.json").write_text(json.dumps(WHOLE))
    monkeypatch.setenv("CAS_CONFIG", "a.json")
    monkeypatch.setenv("CAS_ENV", "testing")
    assert config()["training.steps"] == 1
    assert config(environment="production")["training.steps"] == 10
    with pytest.raises(InvalidInputError, match="it has no environments"):
        config({"experiment": "b"})


def test_what_is_passed_on_is_what_is_in_effect(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = resolve(WHOLE, environment="testing", params={"training.lr": 1e-4})
    with passed_on(known) as passed:
        for name, value in passed.items():
            monkeypatch.setenv(name, value)
        told = json.loads(Path(passed["CAS_CONFIG"]).read_text())
        assert told["params"]["training"] == {"lr": 1e-4, "steps": 1}
        monkeypatch.setenv("CAS_ENV", "production")  # it was applied before
        assert config().words == known.words
        assert Path(passed["CAS_CONFIG"]).stat().st_mode & 0o077 == 0
    assert not Path(passed["CAS_CONFIG"]).exists()
    with passed_on(Config()) as nothing:
        assert nothing == {}


def test_a_run_follows_its_config_and_records_it(here: Path) -> None:
    (here / "exp.yaml").write_text(yamlfile.write(WHOLE | {"notes": "try", "seed": 7}))
    with cas.track(config="exp.yaml", params={"model": "cnn"}, tags=["mine"], name="r") as run:
        assert run.params == {"training": {"lr": 0.001, "steps": 10}, "model": "cnn"}
    repo = Repo.open(here / ".cas")
    commit = repo.commit(repo.root.refs["runs/digits/r"])
    told = repo.document(commit.tree, "config.json")
    assert told == dict(resolve(WHOLE | {"notes": "try", "seed": 7}).words)
    notes = repo.document(commit.tree, "notes.json")
    assert notes == {"labels": ["baseline", "small", "mine"], "group": None, "notes": "try"}
    assert repo.document(commit.tree, "retention.json") == {"last": 2}
    assert repo.document(commit.tree, "seeds.json") == {"seed": 7}


def test_a_secret_in_a_config_is_not_recorded(here: Path) -> None:
    words = {"experiment": "e", "params": {"api_key": "sk-" + "a1B2" * 10}}
    with cas.track(config=words, name="r"):
        pass
    repo = Repo.open(here / ".cas")
    commit = repo.commit(repo.root.refs["runs/e/r"])
    assert "a1B2" not in json.dumps(repo.document(commit.tree, "config.json"))


def test_a_wrong_config_is_told_before_anything_is_recorded(here: Path) -> None:
    with pytest.raises(InvalidInputError, match="no key 'experimnt'"):
        cas.track(config={"experimnt": "x"})
    assert not (here / ".cas").exists()


def test_every_key_is_on_the_page_of_the_format() -> None:
    page = (Path(__file__).parents[3] / "docs/format/runconfig.md").read_text()
    missing = [name for name in KEYS if f"| `{name}` |" not in page]
    assert not missing


def test_the_other_name_of_track_is_the_same() -> None:
    assert cas.ExperimentTracker is cas.track
