"""`cas cat` writes bytes as they are."""

from pathlib import Path

import numpy as np
import pytest

from cas.cli.session import Session
from cas.repo.repo import Repo
from cas.tracking.track import track
from tests.cli.conftest import Cas
from tests.support.builders import RunBuilder, commit_files, noise
from tests.support.tensorfiles import safetensors


def test_bytes_come_back_bit_for_bit(cas: Cas, repo: Repo, place: Path) -> None:
    data = noise(1, 3_000_000)
    (place / "big").write_bytes(data)
    cas("commit", "big")
    assert cas("cat", "HEAD:big").raw == data


def test_the_payload_is_searched_first_then_the_record(cas: Cas, repo: Repo) -> None:
    commit_files(repo, {"x": b"record", "y": b"record"}, payload={"x": b"payload"})
    assert cas("cat", "HEAD:x").raw == b"payload"
    assert cas("cat", "HEAD:y").raw == b"record"


def test_a_series_is_lines_of_numbers(cas: Cas, repo: Repo) -> None:
    metrics = {"acc": 0.1 + 0.2, 'odd,"name': float("nan")}
    RunBuilder(repo, "e/run").checkpoint(7, {}, metrics=metrics)
    assert cas("cat", "e/run:metrics").lines == [
        "metric,step,value",
        "acc,7,0.30000000000000004",
        '"odd,""name",7,nan',
    ]


def test_a_state_is_its_tensors(cas: Cas, repo: Repo) -> None:
    RunBuilder(repo, "e/run").checkpoint(0, {"w": noise(1, 100)})
    (line,) = cas("cat", "e/run:state").lines
    assert line.endswith("uint8  [100]  w")


def test_a_link_is_its_target(cas: Cas, repo: Repo, place: Path) -> None:
    (place / "l").symlink_to("nowhere/at all")
    cas("commit", "l")
    assert cas("cat", "HEAD:l").raw == b"nowhere/at all"


@pytest.mark.parametrize(
    ("rev", "code"), [("HEAD", 2), ("HEAD:", 2), ("HEAD:d", 2), ("HEAD:nope", 3), ("nope:x", 3)]
)
def test_what_cannot_be_written(cas: Cas, repo: Repo, rev: str, code: int) -> None:
    commit_files(repo, {"d": {"x": b"1"}})
    result = cas("cat", rev)
    assert (result.code, result.raw) == (code, b"")


class TestParts:
    DATA = noise(1, 3_000_000)

    @pytest.mark.parametrize(
        ("span", "start", "stop"),
        [
            ("0:10", 0, 10),
            ("1000000:2000000", 1_000_000, 2_000_000),
            (":5", 0, 5),
            ("2999990:", 2_999_990, 3_000_000),
            (":", 0, 3_000_000),
            ("7:7", 7, 7),
        ],
    )
    def test_a_range_of_a_file(
        self, cas: Cas, repo: Repo, span: str, start: int, stop: int
    ) -> None:
        commit_files(repo, {"big": self.DATA})
        assert cas("cat", "HEAD:big", "--range", span).raw == self.DATA[start:stop]

    @pytest.mark.parametrize("span", ["", "5", "a:b", "-5:", "5:4", "0:3000001", "1:2:3", "²:"])
    def test_a_range_that_is_none(self, cas: Cas, repo: Repo, span: str) -> None:
        commit_files(repo, {"big": self.DATA})
        result = cas("cat", "HEAD:big", "--range", span)
        assert (result.code, result.raw) == (2, b"")

    def test_a_tensor_of_a_state(self, cas: Cas, repo: Repo) -> None:
        with track("e", name="run") as run:
            weights = np.frombuffer(self.DATA, np.uint8)
            model = {"w": weights, "b": np.arange(2, dtype=np.int16)}
            id = run.save_checkpoint(model=model).commit
        for rev in ("e/run", str(id), f"{id}:state"):
            assert cas("cat", rev, "--tensor", "model.w").raw == self.DATA
            assert cas("cat", rev, "--tensor", "model.b").raw == bytes([0, 0, 1, 0])
        assert cas("cat", "e/run", "--tensor", "model.w", "--range", "5:").raw == self.DATA[5:]
        wrong = cas("cat", "e/run", "--tensor", "w")
        assert (wrong.code, wrong.raw) == (3, b"")
        assert "did you mean model.w?" in wrong.err
        assert cas("cat", "e/run", "--range", "0:1").code == 2

    def test_a_tensor_of_a_file(self, cas: Cas, repo: Repo) -> None:
        tensors = {"w": ("U8", [3_000_000], self.DATA), "b": ("U8", [3], b"few")}
        commit_files(repo, {"x.safetensors": safetensors(tensors), "t": b"text"})
        rev = "HEAD:x.safetensors"
        assert cas("cat", rev, "--tensor", "w").raw == self.DATA
        assert cas("cat", rev, "--tensor", "b").raw == b"few"
        assert cas("cat", rev, "--tensor", "b", "--range", "1:").raw == b"ew"
        assert cas("cat", rev, "--tensor", "w", "--range", "9:99").raw == self.DATA[9:99]
        assert cas("cat", rev, "--tensor", "w", "--range", "9:3000001").code == 2
        wrong = cas("cat", rev, "--tensor", "x")
        assert (wrong.code, wrong.raw) == (3, b"")
        assert "tensor x not found: there are 2 others" in wrong.err
        assert cas("cat", "HEAD:t", "--tensor", "w").code == 2

    def test_an_array_without_a_name(self, cas: Cas, repo: Repo, place: Path) -> None:
        array = np.arange(40_000, dtype=np.float32).reshape(200, 200)
        np.save(place / "a.npy", array)
        np.save(place / "f.npy", np.asfortranarray(array))
        np.savez_compressed(place / "z.npz", a=array)
        cas("commit", "a.npy", "f.npy", "z.npz")
        assert cas("cat", "HEAD:a.npy", "--tensor", "").raw == array.tobytes()
        for file, name, said in (
            ("a.npy", "x", "tensor x not found: the only one has no name"),
            ("f.npy", "", "the tensor is not stored row by row in its file: `cas checkout`"),
            ("z.npz", "a", "z.npz is no file whose tensors can be read one by one"),
        ):
            wrong = cas("cat", f"HEAD:{file}", "--tensor", name)
            assert (wrong.code, wrong.raw) == (3 if name == "x" else 2, b"")
            assert said in wrong.err
        over = cas("cat", "HEAD:a.npy", "--tensor", "", "--range", "0:160001")
        assert "the tensor has 160000 bytes" in over.err

    def test_a_tensor_is_nothing_for_a_terminal(
        self, cas: Cas, repo: Repo, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        commit_files(repo, {"x": safetensors({"w": ("U8", [3], b"few")})})
        monkeypatch.setattr(Session, "terminal", True)
        result = cas("cat", "HEAD:x", "--tensor", "w")
        assert (result.code, result.raw) == (2, b"")
        assert cas("cat", "HEAD:x", "--range", "0:3").code == 0
