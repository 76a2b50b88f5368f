"""The benchmarks' own parts, at the smallest size: generators, the turns, the tables."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.__main__ import ROWS, arguments
from benchmarks.measure import FailedError, Usage, Watch, check_equal, middle, run, size
from benchmarks.report import Figure, Results, Sample
from benchmarks.sidebyside import Runner, Workload
from benchmarks.workloads import SCALES, Data, write_random, write_table

TINY = replace(SCALES["small"], opaque=100_000, inserted=777, rows=50, files=3, many_files=1001)


def test_what_is_made_is_the_same_every_time(tmp_path: Path) -> None:
    digests = set()
    for name in ("one", "other"):
        data = Data(tmp_path / name, TINY)
        paths = [data.opaque(), data.opaque_shifted(), data.table(), data.table(edited=True)]
        paths += sorted(path for path in data.files().rglob("*") if path.is_file())
        whole = b"".join(path.name.encode() + path.read_bytes() for path in paths)
        digests.add(hashlib.sha256(whole).hexdigest())
    assert len(digests) == 1


def test_made_data_is_kept(tmp_path: Path) -> None:
    before = Data(tmp_path, TINY).opaque().stat().st_mtime_ns
    assert Data(tmp_path, TINY).opaque().stat().st_mtime_ns == before


def test_the_shifted_file_is_the_other_behind_its_front(tmp_path: Path) -> None:
    data = Data(tmp_path, TINY)
    assert data.opaque_shifted().read_bytes()[777:] == data.opaque().read_bytes()


def test_random_bytes_have_the_size_that_was_asked_for(tmp_path: Path) -> None:
    write_random(tmp_path / "random", (1 << 20) + 7, 1)
    assert size(tmp_path / "random") == (1 << 20) + 7


def test_an_edited_table_differs_in_the_middle_alone(tmp_path: Path) -> None:
    write_table(tmp_path / "one", 1000, 7)
    write_table(tmp_path / "other", 1000, 7, edited=True)
    one = (tmp_path / "one").read_text().split("\n")
    other = (tmp_path / "other").read_text().split("\n")
    assert one[:501] == other[:501]
    assert one[601:] == other[611:]
    assert len(other) == len(one) + 10


def test_files_lie_a_thousand_in_a_folder(tmp_path: Path) -> None:
    folder = Data(tmp_path, TINY).files(many=True)
    assert [len(list(inner.iterdir())) for inner in sorted(folder.iterdir())] == [1000, 1]
    assert {path.stat().st_size for path in folder.rglob("*.txt")} == {2048}


@pytest.mark.slow
def test_training_changes_every_weight(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from benchmarks.network import Shape
    from benchmarks.training import Plan, generate

    plan = Plan(Shape(16, 1, 2, 8, 2), 2, 2, 2, 1, 1, 1, 2)
    about = generate(tmp_path, plan)

    assert about["series"]["w"] > 0.9
    assert len(list((tmp_path / "series").iterdir())) == 2
    assert {path.name for path in (tmp_path / "tunes").iterdir()} == {"base.pt", "00.pt"}
    assert json.loads((tmp_path / "about.json").read_text())["frozen"]["changed_bytes"] > 0


@pytest.mark.slow
def test_cas_takes_its_turns_and_gives_everything_back(tmp_path: Path) -> None:
    data = Data(tmp_path / "data", TINY)
    runner = Runner(tmp_path / "work", 1, peers=False, problems=[])

    versions = [data.opaque(), data.opaque_shifted()]
    samples = runner.samples(Workload("front", versions, ("cas", "restic"), again=True))

    assert runner.problems == []
    assert [one.action for one in samples] == ["add", "add version 2", "again", "restore"]
    assert samples[0].stored >= 100_000
    assert all(one.usage.wall > 0 and one.usage.peak > 0 for one in samples)


def test_a_tool_that_is_missing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    runner = Runner(tmp_path / "work", 1, peers=True, problems=[])
    data = Data(tmp_path / "data", TINY)
    assert runner.samples(Workload("front", [data.opaque()], ("restic",))) == []
    assert runner.problems == ["front: restic is not installed"]


def test_a_command_that_fails_says_what_it_said(tmp_path: Path) -> None:
    with pytest.raises(FailedError, match="ended with 3: no luck"):
        run(
            ("sh", "-c", "echo no luck; exit 3"),
            tmp_path,
            {"PATH": "/usr/bin:/bin"},
            tmp_path / "o",
        )


def test_a_restore_that_differs_is_refused(tmp_path: Path) -> None:
    for name, text in (("given", "abc"), ("longer", "abcd"), ("other", "abx")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(text)
    check_equal(tmp_path / "given", tmp_path / "given")
    for name in ("longer", "other"):
        with pytest.raises(FailedError):
            check_equal(tmp_path / "given", tmp_path / name)


def test_watch_sees_the_largest_size(tmp_path: Path) -> None:
    with Watch(tmp_path) as watch:
        (tmp_path / "file").write_bytes(bytes(1000))
        while watch.most < 1000:
            pass
        (tmp_path / "file").unlink()
    assert watch.most == 1000


def test_the_table_judges_the_median() -> None:
    ratio = Figure("row", "stored", "raw", (0.83, 0.81, 0.9), (0.84, 0.82))
    assert middle(ratio.values) == (0.81, 0.83, 0.9)
    assert ratio.verdict == "floor"
    assert replace(ratio, values=(0.82,)).verdict == "goal"
    assert replace(ratio, more=True, values=(0.5,)).verdict == "**below the floor**"
    assert replace(ratio, values=()).verdict == "not run"
    assert replace(ratio, bars=(None, None)).verdict == ""


def test_the_tables_hold_what_was_measured(tmp_path: Path) -> None:
    results = Results({"scale": "tiny"})
    results.figures += [
        Figure("a", "stored size", "raw", (0.83, 0.81, 0.9), (0.84, 0.82)),
        Figure("b", "left | out", "restic", note="restic is not installed"),
    ]
    usage = Usage(2.0, 3.0, 100 << 20)
    results.samples.append(
        Sample("w", "cas", "add", 0, usage, 10_000_000, 5_000_000, "syncs", 10**7)
    )

    table, raw = results.write(tmp_path, "tiny")

    text = table.read_text()
    assert "| stored size | raw | 0.8300 | 0.8100 to 0.9000 | 0.8400 | 0.8200 | floor |  |" in text
    assert "| left \\| out | restic |  |  |  |  | not run | restic is not installed |" in text
    assert "| add | cas | 2.000 | 2.000 to 2.000 | 3.000 | 5 | 100 | 0.5000 | syncs |" in text
    assert json.loads(raw.read_text())["samples"][0]["usage"]["cpu"] == 3.0


def test_workloads_are_picked_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert arguments(["--only", "random,front"]).only == ["random", "front"]
    assert arguments([]).only == list(ROWS)
    with pytest.raises(SystemExit):
        arguments(["--only", "nonsense"])
    assert "no workload nonsense" in capsys.readouterr().err
