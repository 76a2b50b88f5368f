"""What the arguments and files of any program say."""

import math
from pathlib import Path
from typing import Any

import pytest

from cas.errors import InvalidInputError
from cas.tracking.program import Program, argument_params, read_metrics, scalar, script_at


@pytest.mark.parametrize(
    ("arguments", "params"),
    [
        ("train.py --lr 0.1 --name x", {"lr": 0.1, "name": "x"}),
        ("--lr=0.1 --flag", {"lr": 0.1, "flag": True}),
        ("--flag --n 3", {"flag": True, "n": 3}),
        ("--lr -0.5 -v 3", {"lr": -0.5}),
        ("--x= --y 1", {"x": "", "y": 1}),
        ("--a 1 --a 2", {"a": 2}),
        ("--a 1 -- --b 2", {"a": 1}),
        ("--a -- b", {"a": True}),
        ("--=1 x", {}),
        ("plain words", {}),
    ],
)
def test_arguments_are_params(arguments: str, params: dict[str, Any]) -> None:
    assert argument_params(["program", *arguments.split()]) == params


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1), ("-2", -2), ("1.5", 1.5), (".5", 0.5), ("1e-3", 0.001), ("2.", 2.0),
        ("true", True), ("False", False), ("x", "x"), ("1x", "1x"), ("", ""), ("nan", "nan"),
        ("0x10", "0x10"), ("1_000", "1_000"), ("٣", "٣"), ("1e5", 100000.0),
    ],
)  # fmt: skip
def test_a_text_is_a_number_when_it_looks_like_one(text: str, value: object) -> None:
    found = scalar(text)
    assert (type(found), found) == (type(value), value)


Points = list[tuple[int | None, dict[str, float]]]
FILES: dict[str, tuple[str, Points]] = {
    "one.json": (
        '{"loss": 0.5, "ok": true, "name": "x", "n": "3"}',
        [(None, {"loss": 0.5, "n": 3})],
    ),
    "rows.json": (
        '[{"step": 2, "loss": 0.5}, {"loss": NaN}, {"step": "4", "loss": "1e-3"}, {}]',
        [(2, {"loss": 0.5}), (None, {"loss": math.nan}), (4, {"loss": 0.001})],
    ),
    "rows.csv": (
        "step,loss,note\n0,0.5,a\n1,,b\n2,nan,\n3, 0.25 ,7\n",
        [(0, {"loss": 0.5}), (2, {"loss": math.nan}), (3, {"loss": 0.25, "note": 7.0})],
    ),
    "plain.csv": ("acc\n0.5\n0.75\n", [(None, {"acc": 0.5}), (None, {"acc": 0.75})]),
    "empty.csv": ("", []),
}


@pytest.mark.parametrize("name", FILES)
def test_metrics_of_a_file(tmp_path: Path, name: str) -> None:
    content, expected = FILES[name]
    (tmp_path / name).write_text(content)
    assert repr(read_metrics(tmp_path / name)) == repr(
        [(step, {key: float(value) for key, value in row.items()}) for step, row in expected]
    )


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.json", "{"),
        ("x.json", "3"),
        ("x.json", "[1, 2]"),
        ("x.json", '[{"step": 1e400, "a": 1}]'),
        ("x.json", "[" * 100_000),
        ("x.csv", "\udcff"),
    ],
)
def test_metrics_that_cannot_be_read_are_one_error(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(InvalidInputError, match="cannot read metrics from"):
        read_metrics(tmp_path / name)
    with pytest.raises(InvalidInputError, match="No such file"):
        read_metrics(tmp_path / "nowhere.csv")


@pytest.mark.parametrize(
    ("argv", "place"),
    [
        ("python train.py --data data.csv", 1),
        ("python3.11 -X dev -u train.py", 4),
        ("/usr/bin/python -m train data.csv", None),
        ("python -c pass", None),
        ("./train.py a", 0),
        ("sh train.py", 1),
        ("sh -e train.py", 2),
        ("ls nothing", None),
        ("train.py", None),
    ],
)
def test_which_argument_is_the_script(tmp_path: Path, argv: str, place: int | None) -> None:
    for name in ("train.py", "data.csv"):
        (tmp_path / name).write_text("")
    assert script_at(argv.split(), tmp_path) == place


def test_a_program_comes_back_from_its_document(tmp_path: Path) -> None:
    program = Program(("sh", "-c", "x"), {"a": 1}, ("in",), ("out",), "m.json")
    assert Program.from_document(program.document(tmp_path)) == program
    bare = Program(("sh",))
    assert bare.document(tmp_path) == {"kind": "command", "argv": ["sh"]}
    secret = Program(("p", "--api-key", "hunter2hunter2"), {"password": "hunter2"})
    assert "hunter2" not in repr(secret.document(tmp_path))
