"""Two commits side by side: every part says exactly what differs."""

import math
import subprocess
from pathlib import Path

import numpy as np
import pytest

from cas.ids import CommitId, TreeId
from cas.lineage.compare import Comparison, compare
from cas.lineage.curves import Parting
from cas.lineage.values import ValueChange, changes
from cas.lineage.weights import Weights, compare_states
from cas.objects.commit import COMMIT, INPUT, Monitor, Parent
from cas.objects.manifest import State
from cas.objects.node import Node
from cas.objects.states import build_state
from cas.repo.repo import Repo
from cas.repo.transaction import transact
from tests.support.builders import repository
from tests.support.lineage import checkpoint, make, prune


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return repository(tmp_path)


def weights_of(found: Comparison) -> Weights:
    assert found.weights is not None
    return found.weights


def pair(repo: Repo, old: object, new: object) -> Weights:
    ids = [checkpoint(repo, {"model": state}, step=n) for n, state in enumerate((old, new))]
    return weights_of(compare(repo, ids[0], ids[1]))


class TestValues:
    def test_nested_values_have_dotted_paths(self) -> None:
        old = {"lr": 0.1, "opt": {"name": "sgd", "momentum": 0.9}, "same": [1, {"a": 2}]}
        new = {"lr": 0.05, "opt": {"name": "adam", "betas": [1, 2]}, "same": [1, {"a": 2}]}
        assert changes(old, new) == (
            ValueChange("lr", "changed", 0.1, 0.05),
            ValueChange("opt.betas", "added", None, [1, 2]),
            ValueChange("opt.momentum", "removed", 0.9),
            ValueChange("opt.name", "changed", "sgd", "adam"),
        )

    def test_a_map_that_is_new_comes_leaf_by_leaf(self) -> None:
        found = changes({}, {"a": {"b": {"c": 1, "d": {}}}})
        assert [(change.path, change.new) for change in found] == [("a.b.c", 1), ("a.b.d", {})]

    def test_null_is_a_value(self) -> None:
        assert changes({"a": None}, {}) == (ValueChange("a", "removed", None),)
        assert changes({"a": None}, {"a": 0}) == (ValueChange("a", "changed", None, 0),)

    @pytest.mark.parametrize(
        ("left", "right", "equal"),
        [
            (1, 1.0, True),
            (math.nan, math.nan, True),
            ([math.nan], [math.nan], True),
            (1, True, False),
            (0, False, False),
            ("1", 1, False),
            ([1], [1, 2], False),
            ({"a": 1}, [1], False),
            (0.0, math.nan, False),
        ],
    )
    def test_values_are_the_same_when_they_mean_the_same(
        self, left: object, right: object, equal: bool
    ) -> None:
        assert (changes({"a": left}, {"a": right}) == ()) is equal

    def test_a_document_that_is_no_map_has_no_values(self) -> None:
        assert changes([1], None) == ()


def test_a_commit_does_not_differ_from_itself(repo: Repo) -> None:
    id = make(repo, documents={"params": {"a": 1}}, metrics={"loss": [(0, 1.0)]})
    found = compare(repo, id, id)
    assert found.same
    assert found.old.title == found.new.title == "exp/one"


def test_documents_are_compared_part_by_part(repo: Repo) -> None:
    def documents(lr: float, numpy: str, seed: int) -> dict[str, object]:
        environment = {"packages": {"numpy": numpy, "torch": "2.4"}, "python": {"version": "3.11"}}
        return {
            "params": {"lr": lr},
            "environment": environment,
            "seeds": {"seed": seed},
            "host": {"host": f"host{seed}"},
        }

    ids = [
        make(repo, documents=documents(0.1, "1.26", 1)),
        make(repo, documents=documents(0.2, "2.0", 2)),
    ]
    found = compare(repo, *ids)
    assert found.params == (ValueChange("lr", "changed", 0.1, 0.2),)
    assert found.packages == (ValueChange("numpy", "changed", "1.26", "2.0"),)
    assert found.environment == ()
    assert found.seeds == (ValueChange("seed", "changed", 1, 2),)
    assert not found.same


def test_what_only_one_commit_recorded_is_no_difference_of_the_environment(repo: Repo) -> None:
    ids = [make(repo, documents={"environment": {"packages": {"a": "1"}}}), make(repo, run="two")]
    found = compare(repo, *ids)
    assert (found.packages, found.environment) == ((), ())


class TestMetrics:
    def test_histories_part_at_the_first_step_that_differs(self, repo: Repo) -> None:
        old = make(repo, metrics={"loss": [(0, 3.0), (1, 2.0), (2, 1.0)], "acc": [(0, 0.5)]})
        new = make(repo, metrics={"loss": [(0, 3.0), (1, 2.5), (2, 0.5)], "acc": [(0, 0.5)]})
        (change,) = compare(repo, old, new).metrics
        assert change.name == "loss"
        assert change.parting == Parting(1, 2.0, 2.5)
        assert change.old is not None
        assert (change.old.last, change.old.min, change.old.max) == (1.0, 1.0, 3.0)
        assert change.new is not None
        assert (change.new.last, change.new.last_step, change.new.count) == (0.5, 2, 3)

    def test_the_mode_comes_from_the_monitor(self, repo: Repo) -> None:
        old = make(repo, metrics={"acc": [(0, 0.5)], "loss": [(0, 1.0)]})
        monitor = Monitor("acc", "max", 0.6)
        new = make(repo, metrics={"acc": [(0, 0.6)], "loss": [(0, 2.0)]}, monitor=monitor)
        modes = {change.name: change.mode for change in compare(repo, old, new).metrics}
        assert modes == {"acc": "max", "loss": None}

    def test_a_metric_of_one_side_parts_at_its_first_step(self, repo: Repo) -> None:
        old = make(repo)
        new = make(repo, metrics={"loss": [(3, 1.0)]})
        (change,) = compare(repo, old, new).metrics
        assert (change.old, change.parting) == (None, Parting(3, None, 1.0))

    def test_checkpoints_have_the_history_of_their_run(self, repo: Repo) -> None:
        first = checkpoint(repo, {"w": 1}, step=0, metrics={"loss": [(0, 3.0)]})
        second = checkpoint(repo, {"w": 2}, step=1, metrics={"loss": [(1, 2.0)]}, before=first)
        other = checkpoint(
            repo, {"w": 2}, step=1, metrics={"loss": [(1, 1.5)]}, before=first, time=2
        )
        (change,) = compare(repo, second, other).metrics
        assert change.parting == Parting(1, 2.0, 1.5)
        (change,) = compare(repo, first, second).metrics
        assert change.parting == Parting(1, None, 2.0)

    def test_nan_is_equal_to_itself(self, repo: Repo) -> None:
        nan = float("nan")
        ids = [
            make(repo, metrics={"loss": [(0, nan), (1, 1.0), (2, value)]}) for value in (1.0, 2.0)
        ]
        (change,) = compare(repo, *ids).metrics
        assert change.parting == Parting(2, 1.0, 2.0)

    def test_a_damaged_summary_is_passed_over(self, repo: Repo) -> None:
        ids = [
            make(repo, documents={"summary": {"loss": told, "acc": [1]}}, run=name)
            for name, told in (("one", {"last": "high", "min": True}), ("two", {"last": 1.0}))
        ]
        found = compare(repo, *ids).metrics
        assert [(change.name, change.old and change.old.last) for change in found] == [
            ("loss", None)
        ]


class TestCode:
    def patch(self, repo: Repo, old: dict[str, bytes], new: dict[str, bytes]) -> Comparison:
        ids = [
            make(repo, record={f"code/{path}": data for path, data in files.items()})
            for files in (old, new)
        ]
        return compare(repo, *ids)

    def test_git_applies_the_patch(self, repo: Repo, tmp_path: Path) -> None:
        body = b"".join(b"line %d\n" % n for n in range(40))
        old = {
            "a/changed.py": body,
            "gone.py": b"x = 1\ny = 2\n",
            "no_end.py": b"a\nb",
            "odd.py": b"one\x0cstill one\nb\r\n",
            "same.py": b"same\n",
        }
        new = {
            "a/changed.py": body.replace(b"line 7\n", b"seven\n").replace(b"line 33\n", b""),
            "come.py": b"new\n",
            "no_end.py": b"a\nc",
            "odd.py": b"one\x0cstill two\nb\r\n",
            "same.py": b"same\n",
        }
        found = self.patch(repo, old, new).code
        assert {file.path: (file.how, file.added, file.removed) for file in found} == {
            "a/changed.py": ("changed", 1, 2),
            "come.py": ("added", 1, 0),
            "gone.py": ("removed", 0, 2),
            "no_end.py": ("changed", 1, 1),
            "odd.py": ("changed", 1, 1),
        }
        work = tmp_path / "work"
        for path, data in old.items():
            (work / path).parent.mkdir(parents=True, exist_ok=True)
            (work / path).write_bytes(data)
        patch = "".join(f"{line}\n" for file in found for line in file.lines)
        call = ["git", "-c", "core.autocrlf=false", "apply", "--whitespace=nowarn", "-"]
        subprocess.run(call, cwd=work, input=patch.encode(), check=True)
        files = [path for path in work.rglob("*") if path.is_file()]
        assert {str(path.relative_to(work)): path.read_bytes() for path in files} == new

    def test_what_is_no_text_only_differs(self, repo: Repo) -> None:
        old = {"bin": b"\xff\xfe", "zero": b"a\0b", "big": b"x\n" * 400_000, "long": b"\n" * 20_000}
        found = self.patch(repo, old, {path: data + b"x" for path, data in old.items()}).code
        assert {file.path: file.note for file in found} == {
            "bin": "binary",
            "zero": "binary",
            "big": "large",
            "long": "large",
        }
        assert not any(file.lines for file in found)

    def test_no_patch_without_code_on_both_sides(self, repo: Repo) -> None:
        ids = [make(repo, record={"code/a.py": b"a\n"}), make(repo)]
        assert compare(repo, *ids).code == ()


class TestInputs:
    def data(self, repo: Repo, name: str, content: bytes) -> CommitId:
        documents = {"input": {"name": name}}
        return make(repo, kind=INPUT, documents=documents, payload={"data": content})

    def test_an_input_of_one_role_is_another_commit(self, repo: Repo) -> None:
        one, two = self.data(repo, "digits", b"1"), self.data(repo, "digits", b"2")
        old = make(repo, parents=(Parent("dataset", one, "", {"split": "train"}),))
        new = make(repo, parents=(Parent("dataset", two, "", {"split": "train"}),))
        (change,) = compare(repo, old, new).inputs
        assert (change.role, change.how) == ("dataset", "changed")
        assert change.old is not None
        assert (change.old.commit, change.old.name, change.old.split) == (one, "digits", "train")
        assert change.new is not None
        assert change.new.commit == two

    def test_equal_inputs_say_nothing_wherever_they_stood(self, repo: Repo) -> None:
        one = self.data(repo, "digits", b"1")
        old = make(repo, parents=(Parent("dataset", one, "", {"at": "a"}),))
        new = make(repo, parents=(Parent("dataset", one, "", {"at": "b"}),))
        assert compare(repo, old, new).inputs == ()

    def test_of_several_inputs_those_of_one_name_are_compared(self, repo: Repo) -> None:
        a, b, c = (self.data(repo, name, name.encode()) for name in ("a", "b", "c"))
        b2 = self.data(repo, "b", b"other")
        old = make(repo, parents=tuple(Parent("dataset", id) for id in (a, b)))
        new = make(repo, parents=tuple(Parent("dataset", id) for id in (b2, c, a)))
        found = compare(repo, old, new).inputs
        assert [(one.how, (one.old or one.new).name) for one in found] == [  # type: ignore[union-attr]
            ("changed", "b"),
            ("added", "c"),
        ]

    def test_what_a_run_was_forked_from_is_an_input(self, repo: Repo) -> None:
        base = checkpoint(repo, {"w": 1}, step=4)
        old, new = make(repo), make(repo, parents=(Parent("resumed-from", base),))
        (change,) = compare(repo, old, new).inputs
        assert change.new is not None
        assert (change.role, change.how, change.new.name) == (
            *("resumed-from", "added"),
            "exp/one checkpoint 4",
        )


class TestFiles:
    def test_artifacts_are_compared_by_id_wherever_they_stand(self, repo: Repo) -> None:
        old = make(
            repo,
            record={"artifacts/moved": b"m", "artifacts/gone": b"g", "artifacts/a/b": b"1"},
            payload={"artifacts/large": b"l", "log.txt": b"one"},
        )
        new = make(
            repo,
            record={"artifacts/large": b"l", "artifacts/a/b": b"2"},
            payload={"artifacts/moved": b"m", "artifacts/come": b"c", "log.txt": b"two"},
        )
        found = compare(repo, old, new)
        assert [(one.path, one.how) for one in found.artifacts] == [
            ("a/b", "changed"),
            ("come", "added"),
            ("gone", "removed"),
        ]
        assert found.files == ()

    def test_of_many_artifacts_only_the_nodes_that_differ_are_read(
        self, repo: Repo, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        many = {f"artifacts/d/{n:05}": b"%d" % n for n in range(8000)}
        old = make(repo, payload=many)
        new = make(repo, payload=many | {"artifacts/d/01500": b"other"})
        read: list[TreeId] = []
        node = Repo.node

        def counted(self: Repo, id: TreeId) -> Node:
            read.append(id)
            return node(self, id)

        monkeypatch.setattr(Repo, "node", counted)
        found = compare(repo, old, new, measure=False)
        assert [(one.path, one.how) for one in found.artifacts] == [("d/01500", "changed")]
        rows = sum(len(node(repo, id).names) for id in set(read))
        assert rows < 4000  # of 16,000

    def test_artifacts_of_a_pruned_payload_are_not_called_gone_in_silence(self, repo: Repo) -> None:
        old = make(repo, payload={"artifacts/large": b"1"})
        new = make(repo, payload={"artifacts/large": b"2"})
        prune(repo, old)
        found = compare(repo, old, new)
        assert found.notes == (
            f"the payload of {old.short} was pruned: "
            "large artifacts, and what was logged in it, are not compared",
        )
        assert not found.same

    def test_files_of_a_persons_commits_are_compared(self, repo: Repo) -> None:
        old = make(repo, kind=COMMIT, run=None, payload={"a": b"1", "sub/b": b"2"})
        new = make(repo, kind=COMMIT, run=None, payload={"a": b"1", "sub/b": b"33", "c": b""})
        found = compare(repo, old, new).files
        assert [(one.path, one.how, one.old_bytes, one.new_bytes) for one in found] == [
            ("c", "added", None, 0),
            ("sub/b", "changed", 1, 2),
        ]

    def test_pruned_files_are_said_to_differ_by_their_ids(self, repo: Repo) -> None:
        old = make(repo, kind=COMMIT, run=None, payload={"a": b"1"})
        new = make(repo, kind=COMMIT, run=None, payload={"a": b"2"})
        prune(repo, old)
        found = compare(repo, old, new)
        assert found.notes == (
            f"the payload of {old.short} was pruned: by their ids the files differ",
        )
        assert not found.same


class TestWeights:
    def test_each_tensor_is_equal_changed_added_or_gone(self, repo: Repo) -> None:
        same = np.arange(100.0)
        weights = pair(
            repo,
            {"same": same, "w": np.zeros(100, np.float32), "gone": same + 1, "shape": same + 0},
            {
                "same": same,
                "w": np.array([0.5] * 25 + [0.0] * 75, np.float32),
                "come": same + 2,
                "shape": same.reshape(10, 10),
            },
        )
        assert weights.equal == 1
        assert weights.added == ("model.come",)
        assert weights.gone == ("model.gone",)
        changed = {change.path: change for change in weights.changed}
        assert changed.keys() == {"model.w", "model.shape"}
        w = changed["model.w"]
        assert (w.changed_share, w.max_difference, w.mean_difference) == (0.25, 0.5, 0.125)
        assert changed["model.shape"].changed_share is None
        assert changed["model.shape"].new_shape == (10, 10)

    @pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
    def test_differences_are_measured_in_every_float(self, repo: Repo, dtype: str) -> None:
        old = np.linspace(-1, 1, 64).astype(dtype)
        (change,) = pair(repo, {"w": old}, {"w": old + np.asarray(1, dtype)}).changed
        assert change.changed_share == 1.0
        assert change.max_difference == pytest.approx(1.0, abs=1e-2)
        assert change.mean_difference == pytest.approx(1.0, abs=1e-2)

    def test_integers_and_truth_values_only_have_a_share(self, repo: Repo) -> None:
        found = pair(
            repo,
            {"i": np.arange(4), "b": np.array([True, True]), "c": np.array([1j, 2j, 3j, 4j])},
            {"i": np.array([0, 1, 2, 9]), "b": np.array([True, False]), "c": np.arange(4) * 1j},
        ).changed
        told = {change.path: (change.changed_share, change.max_difference) for change in found}
        assert told == {
            "model.i": (0.25, None),
            "model.b": (0.5, None),
            "model.c": (1.0, None),
        }

    def test_what_is_not_finite_does_not_spoil_the_rest(self, repo: Repo) -> None:
        old = np.array([np.inf, np.nan, 0.0, 0.0, -0.0])
        new = np.array([np.inf, np.nan, np.inf, 2.0, 0.0])
        (change,) = pair(repo, {"w": old}, {"w": new}).changed
        assert change.changed_share == 0.6
        assert change.max_difference == 2.0
        assert change.mean_difference == 0.5

    def test_tensors_of_many_pieces_are_compared_piece_by_piece(self, repo: Repo) -> None:
        old = np.zeros(1_200_000)
        new = old.copy()
        new[[0, 600_000, -1]] = 3.0
        (change,) = pair(repo, {"w": old}, {"w": new}).changed
        assert change.changed_share == 3 / 1_200_000
        assert change.max_difference == 3.0

    def test_bfloat16_is_widened(self, repo: Repo) -> None:
        torch = pytest.importorskip("torch")
        from cas.integrations.torch import ADAPTER

        values = torch.linspace(-2, 2, 100).to(torch.bfloat16)

        def write(tensor: object) -> State:
            return transact(
                repo, "state", lambda tx: build_state({"w": tensor}, (ADAPTER,), tx.writer.blob)
            )

        id = make(repo)
        old, new = write(values), write(values + 1)
        found = compare_states(repo, old, new, (id, id))
        expected = (values + 1).double().sub(values.double()).abs()
        assert found.changed[0].max_difference == expected.max().item()
        assert found.changed[0].mean_difference == pytest.approx(expected.mean().item())

    def test_values_that_are_no_tensors_are_told_of(self, repo: Repo) -> None:
        w = np.arange(3.0)
        weights = pair(repo, {"w": w, "lr": 0.1}, {"w": w, "lr": 0.2})
        assert weights.equal == 1
        assert weights.other_values
        assert not weights.same

    def test_without_measuring_no_tensor_is_read(self, repo: Repo) -> None:
        old = checkpoint(repo, {"w": np.zeros(100)})
        new = checkpoint(repo, {"w": np.ones(100)})
        (change,) = weights_of(compare(repo, old, new, measure=False)).changed
        assert change.changed_share is None

    def test_a_run_stands_for_its_newest_checkpoint_that_is_kept(self, repo: Repo) -> None:
        first = checkpoint(repo, {"w": np.zeros(3)}, step=0)
        second = checkpoint(repo, {"w": np.ones(3)}, step=1, before=first)
        end = make(repo, before=second)
        other = checkpoint(repo, {"w": np.zeros(3)}, run="two")
        assert weights_of(compare(repo, end, other)).old == second
        prune(repo, second)
        found = weights_of(compare(repo, end, other))
        assert (found.old, found.equal, found.same) == (first, 1, True)

    def test_pruned_weights_are_compared_by_id_alone(self, repo: Repo) -> None:
        old = checkpoint(repo, {"w": np.zeros(3)}, step=0)
        equal = checkpoint(repo, {"w": np.zeros(3)}, step=1)
        other = checkpoint(repo, {"w": np.ones(3)}, step=2)
        prune(repo, old, equal)
        assert weights_of(compare(repo, old, equal)).same
        found = weights_of(compare(repo, old, other))
        assert found.note == (
            f"the payload of {old.short} was pruned: by their ids the weights differ"
        )
        assert not found.same

    def test_commits_without_weights_have_none(self, repo: Repo) -> None:
        assert compare(repo, make(repo), checkpoint(repo, {"w": 1})).weights is None
