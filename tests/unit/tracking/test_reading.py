"""Reading without a run: what is asked for comes back, and hardly anything else is read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cas
from cas.backend.files import FileOps
from cas.errors import (
    AmbiguousError,
    InvalidInputError,
    NoRepositoryError,
    NotFoundError,
    UnsupportedError,
)
from cas.ids import CommitId
from cas.objects.commit import Commit
from cas.objects.tree import Entry, EntryKind, build
from cas.repo.transaction import Transaction, transact
from cas.repo.trees.cutting import store_tensors
from tests.support.builders import commit_files, noise, write_files, write_state
from tests.support.runs import opened
from tests.support.tensorfiles import safetensors

SIZE = 5_000_000
WEIGHT = np.frombuffer(noise(1, SIZE), np.uint8)
BIAS = np.arange(7, dtype=np.float64)


@pytest.fixture
def read_bytes(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How many bytes were read of packs since it was last asked."""
    count = 0
    pread = FileOps.pread

    def counted(self: FileOps, fd: int, length: int, offset: int) -> bytes:
        nonlocal count
        data = pread(self, fd, length, offset)
        count += len(data)
        return data

    def told() -> int:
        nonlocal count
        count, since = 0, count
        return since

    monkeypatch.setattr(FileOps, "pread", counted)
    return told


@pytest.fixture
def saved(here: Path) -> CommitId | None:
    """A checkpoint of twenty tensors, and a run around it."""
    with cas.track("a", name="x") as run:
        weights = {f"layer{n}.weight": WEIGHT ^ n for n in range(20)}
        return run.save_checkpoint(
            model=weights | {"head.weight": weights["layer0.weight"], "bias": BIAS},
            optimizer={"state": {0: {"step": np.float32(3)}}},
            step=3,
            metrics={"loss": 0.5},
        ).commit


def commit_file(folder: Path, name: str, data: bytes) -> None:
    path = folder / "file"
    path.write_bytes(data)

    def make(tx: Transaction) -> None:
        with path.open("rb") as file:
            cut = store_tensors(tx.writer, file, len(data))
        id = cut[0] if cut else tx.writer.blob(data)
        payload = build([Entry(b"f", EntryKind.FILE, id, len(data), 0o644)], tx.writer.tree)
        commit = Commit(kind="commit", tree=write_files(tx, {}), payload=payload.id)
        tx.set_ref(f"tags/{name}", tx.record(commit))

    transact(opened(folder), "commit", make)


def npy(array: Any) -> bytes:
    from io import BytesIO

    out = BytesIO()
    np.save(out, array)
    return out.getvalue()


def equal(found: Any, expected: Any) -> bool:
    return bool(found.dtype == expected.dtype and np.array_equal(found, expected))


class TestLoad:
    def test_of_a_checkpoint_or_of_a_run_its_whole_state(self, saved: CommitId) -> None:
        for rev in ("a/x", str(saved), "a/x@latest", f"{saved}:state"):
            state = cas.load(rev)
            assert set(state) == {"model", "optimizer", "rng", "step", "epoch"}
            assert equal(state["model"]["layer7.weight"], WEIGHT ^ 7)
            assert state["model"]["head.weight"] is state["model"]["layer0.weight"]
            assert state["optimizer"] == {"state": {0: {"step": np.float32(3)}}}

    def test_of_a_series_steps_and_values(self, saved: CommitId) -> None:
        steps, values = cas.load(f"{saved}:metrics")["loss"]
        assert (steps.tolist(), values.tolist()) == ([3], [0.5])

    def test_of_an_input_its_only_state(self, here: Path) -> None:
        with cas.track("a") as run:
            run.track_dataset({"x": BIAS}, name="d")
        assert equal(cas.load("datasets/d")["x"], BIAS)
        assert equal(cas.read_tensor("datasets/d", "x"), BIAS)
        assert equal(cas.read_tensor("datasets/d"), BIAS)

    def test_what_is_no_state_is_refused(self, saved: CommitId, here: Path) -> None:
        repo = opened(here)
        commit_files(repo, {"f": b"x"})
        with pytest.raises(InvalidInputError, match=r"f is no state: cas\.open_file reads a file"):
            cas.load("HEAD:f")
        with pytest.raises(NotFoundError, match="state in HEAD not found: name what to read as"):
            cas.load("HEAD")
        with pytest.raises(NotFoundError, match="path nope not found"):
            cas.load("a/x:nope")

    def test_of_two_states_neither_is_meant(self, here: Path) -> None:
        cas.track("a").finish()

        def make(tx: Transaction) -> None:
            id = write_state(tx, {"w": b"1"})
            entries = [Entry(name, EntryKind.STATE, id, 1) for name in (b"one", b"two")]
            tree = build(entries, tx.writer.tree).id
            tx.set_ref("tags/t", tx.record(Commit(kind="commit", tree=tree)))

        transact(opened(here), "commit", make)
        with pytest.raises(AmbiguousError, match="t:one, t:two"):
            cas.load("t")

    def test_no_repository_is_made_for_reading(self, here: Path) -> None:
        with pytest.raises(NoRepositoryError):
            cas.load("a/x")
        assert list(here.iterdir()) == []

    def test_the_repository_can_be_named(
        self, saved: CommitId, here: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir("/")
        assert cas.load("a/x", repo=here)["step"] == 3
        monkeypatch.setenv("CAS_DIR", str(here))
        assert equal(cas.read_tensor("a/x", "model.bias"), BIAS)


class TestOneTensor:
    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("model.layer3.weight", WEIGHT ^ 3),
            ("model.head.weight", WEIGHT ^ 0),
            ("model['layer19.weight']", WEIGHT ^ 19),
            ("model.bias", BIAS),
        ],
    )
    def test_of_a_state(self, saved: CommitId, name: str, expected: Any) -> None:
        found = cas.read_tensor("a/x", name)
        assert equal(found, expected)
        found[0] = 1  # it is the caller's own

    def test_reads_no_other(self, saved: CommitId, read_bytes: Callable[[], int]) -> None:
        cas.load("a/x")
        whole = read_bytes()
        assert whole > 20 * SIZE
        cas.read_tensor("a/x", "model.layer3.weight")
        assert SIZE < read_bytes() < SIZE + 60_000
        cas.read_tensor("a/x", "model.bias")
        assert read_bytes() < 60_000

    def test_a_wrong_name_says_what_is_near(
        self, saved: CommitId, read_bytes: Callable[[], int]
    ) -> None:
        with pytest.raises(NotFoundError, match=r"did you mean model\.layer3\.weight\?"):
            cas.read_tensor("a/x", "layer3.weight")
        with pytest.raises(InvalidInputError, match="tensors: name one; `cas ls` lists them"):
            cas.read_tensor("a/x")
        assert read_bytes() < 120_000

    def test_of_a_pruned_checkpoint(self, saved: CommitId, here: Path) -> None:
        from cas.repo.collect import gc

        repo = opened(here)
        transact(repo, "prune", lambda tx: tx.set_ref(f"holds/{saved}", None))
        gc.execute(repo, gc.plan(repo))
        with pytest.raises(NotFoundError, match=r"the payload of .* was pruned"):
            cas.read_tensor("a/x", "model.bias")

    def test_of_torch_in_any_dtype(self, here: Path) -> None:
        torch: Any = pytest.importorskip("torch")
        values = {
            str(dtype): torch.arange(100).to(dtype)
            for dtype in (torch.bfloat16, torch.float8_e4m3fn, torch.float32, torch.int8)
        }
        with cas.track("t", name="x") as run:
            run.save_checkpoint(model=values)
        for name, tensor in values.items():
            found = cas.read_tensor("t/x", f"model.{name}")
            assert (found.dtype, found.shape) == (tensor.dtype, tensor.shape)
            assert torch.equal(found.view(torch.uint8), tensor.view(torch.uint8))


class TestInAFile:
    @pytest.fixture(autouse=True)
    def _repository(self, here: Path) -> None:
        cas.track("a").finish()

    def test_one_tensor(self, here: Path, read_bytes: Callable[[], int]) -> None:
        tensors = {
            f"l{n}": ("U8", [len(WEIGHT) // 2, 2], (WEIGHT ^ n).tobytes()) for n in range(10)
        }
        few = {"b": ("F64", [7], BIAS.tobytes())}
        commit_file(here, "file", safetensors(tensors | few))
        read_bytes()
        found = cas.read_tensor("file:f", "l4")
        assert equal(found, (WEIGHT ^ 4).reshape(-1, 2))
        assert SIZE < read_bytes() < SIZE + 60_000
        assert equal(cas.read_tensor("file:f", "b"), BIAS)
        assert read_bytes() < 60_000
        found[0] = 1
        with pytest.raises(NotFoundError, match=r"tensor l44 not found: did you mean l4"):
            cas.read_tensor("file:f", "l44")
        with pytest.raises(InvalidInputError, match="there are 11 tensors: name one"):
            cas.read_tensor("file:f")

    @pytest.mark.parametrize("array", [BIAS, WEIGHT.reshape(5, -1), BIAS[:0]], ids=len)
    def test_the_only_one_needs_no_name(self, here: Path, array: Any) -> None:
        commit_file(here, "file", npy(array))
        assert equal(cas.read_tensor("file:f"), array)

    def test_what_numpy_lacks_is_torchs(self, here: Path) -> None:
        torch: Any = pytest.importorskip("torch")
        data = torch.arange(70_000).to(torch.bfloat16)
        raw = data.view(torch.int16).numpy().tobytes()
        commit_file(here, "file", safetensors({"w": ("BF16", [70_000], raw)}))
        found = cas.read_tensor("file:f", "w")
        assert found.dtype == torch.bfloat16
        assert torch.equal(found, data)

    def test_torch_save(self, here: Path) -> None:
        torch: Any = pytest.importorskip("torch")
        whole = torch.arange(100_000, dtype=torch.float32)
        torch.save({"m": {"w": whole, "t": whole.reshape(-1, 2).t()}}, here / "saved")
        commit_file(here, "file", (here / "saved").read_bytes())
        assert equal(cas.read_tensor("file:f", "m.w"), whole.numpy())
        with pytest.raises(InvalidInputError, match=r"m\.t is not stored row by row"):
            cas.read_tensor("file:f", "m.t")

    def test_a_file_that_is_not_known(self, here: Path) -> None:
        commit_file(here, "file", b"text")
        with pytest.raises(
            InvalidInputError, match="f is no file whose tensors can be read one by one"
        ):
            cas.read_tensor("file:f", "w")

    def test_a_dtype_of_its_own_format(self, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from cas.repo.trees import pick

        commit_file(here, "file", npy(WEIGHT))
        monkeypatch.setattr(pick, "DTYPES", {})
        with pytest.raises(UnsupportedError, match="which only its own format knows"):
            cas.read_tensor("file:f")


class TestOpenFile:
    def test_anywhere_in_it(self, here: Path, read_bytes: Callable[[], int]) -> None:
        data = noise(3, 9_000_000)
        commit_files(opened_or_made(here), {}, payload={"f": data})
        read_bytes()
        with cas.open_file("HEAD:f") as file:
            assert file.read(10) == data[:10]
            file.seek(-5, 2)
            assert file.read() == data[-5:]
            file.seek(5_000_000)
            assert file.read(100_000) == data[5_000_000:5_100_000]
            file.seek(-50_000, 1)
            assert file.tell() == 5_050_000
            assert file.read(1) == data[5_050_000:5_050_001]
        assert read_bytes() < 4_000_000
        with cas.open_file("HEAD:f") as file:
            assert file.read() == data

    def test_before_the_first_byte_is_nowhere(self, here: Path) -> None:
        commit_files(opened_or_made(here), {"f": b"0123456789"})
        with cas.open_file("HEAD:f") as file:
            for offset, whence in ((-1, 0), (-11, 2)):
                with pytest.raises(ValueError, match="before the first byte"):
                    file.seek(offset, whence)
            assert file.read() == b"0123456789"

    def test_numpy_reads_from_it(self, here: Path) -> None:
        commit_files(opened_or_made(here), {"a.npy": npy(BIAS)})
        with cas.open_file("HEAD:a.npy") as file:
            assert equal(np.load(file), BIAS)

    def test_lines(self, here: Path) -> None:
        commit_files(opened_or_made(here), {"t": b"one\ntwo\nthree"})
        assert list(cas.open_file("HEAD:t")) == [b"one\n", b"two\n", b"three"]

    def test_what_is_no_file(self, saved: CommitId) -> None:
        with pytest.raises(InvalidInputError, match=r"state is no file: cas\.load reads a state"):
            cas.open_file("a/x")


def opened_or_made(folder: Path) -> Any:
    cas.track("a").finish()
    return opened(folder)
