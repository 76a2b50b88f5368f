"""Tensor files are read as data, strictly; anything odd about one makes it opaque bytes."""

import io
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cas.objects.containers.files import FoundTensor, tensors, tensors_in
from tests.support import tensorfiles as make
from tests.support.tensorfiles import archive, safetensors, state_dict, tensor, with_header

W = np.arange(6, dtype="<f4").tobytes()
GOOD_SAFE = safetensors({"w": ("F32", [2, 3], W), "n": ("I64", [], b"\1" * 8)})
GOOD_TORCH = archive(
    state_dict({"w": tensor("0", (2, 3)), "b": tensor("1", (2,), kind="LongStorage")}),
    {"0": W, "1": bytes(16)},
)


def found(data: bytes) -> list[FoundTensor] | None:
    return tensors_in(io.BytesIO(data))


def contents(data: bytes) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    rows = found(data)
    assert rows is not None
    return {
        row.name: (row.dtype, row.shape, data[row.offset : row.offset + row.nbytes])
        for row in rows
        if row.offset is not None
    }


def npy(array: Any, **options: Any) -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array(out, array, **options)
    return out.getvalue()


class TestSafetensors:
    def test_tensors_are_found_where_they_lie(self) -> None:
        assert contents(GOOD_SAFE) == {
            "w": ("float32", (2, 3), W),
            "n": ("int64", (), b"\1" * 8),
        }

    def test_metadata_and_empty_tensors_are_fine(self) -> None:
        data = safetensors({"e": ("BF16", [0, 4], b""), "w": ("F32", [6], W)}, {"format": "pt"})
        assert contents(data).keys() == {"e", "w"}
        assert found(safetensors({})) == []

    @pytest.mark.parametrize(
        "header",
        [
            "[]",
            "{",
            "{}{}",
            '{"w": NaN}',
            '{"w": {"dtype": "F32", "shape": [6], "data_offsets": [0, 24], "more": 1}}',
            '{"w": {"dtype": "F32", "shape": [6]}}',
            '{"w": {"dtype": "F33", "shape": [6], "data_offsets": [0, 24]}}',
            '{"w": {"dtype": 7, "shape": [6], "data_offsets": [0, 24]}}',
            '{"w": {"dtype": ["F32"], "shape": [6], "data_offsets": [0, 24]}}',
            '{"w": {"dtype": "F32", "shape": [5], "data_offsets": [0, 24]}}',
            '{"w": {"dtype": "F32", "shape": [6.0], "data_offsets": [0, 24]}}',
            '{"w": {"dtype": "F32", "shape": [true, 6], "data_offsets": [0, 24]}}',
            '{"w": {"dtype": "F32", "shape": [-2, -3], "data_offsets": [0, 24]}}',
            '{"w": {"dtype": "F32", "shape": 6, "data_offsets": [0, 24]}}',
            '{"w": {"dtype": "F32", "shape": [6], "data_offsets": [0, 24, 24]}}',
            '{"w": {"dtype": "F32", "shape": [6], "data_offsets": [24, 0]}}',
            '{"w": {"dtype": "F32", "shape": [6], "data_offsets": [1, 25]}}',
            '{"w": {"dtype": "F32", "shape": [5], "data_offsets": [0, 20]}}',
            '{"w": {"dtype": "F32", "shape": [7], "data_offsets": [0, 28]}}',
            '{"w": {"dtype": "U8", "shape": [0, 99999999999999999999], "data_offsets": [0, 0]}}',
            '{"w": {"dtype": "F32", "shape": [6], "data_offsets": [0, 24]}, "__metadata__": []}',
            '{"w": {"dtype": "F32", "shape": [6], "data_offsets": [0, 24]},'
            ' "__metadata__": {"a": 1}}',
            '{"\\ud800": {"dtype": "F32", "shape": [6], "data_offsets": [0, 24]}}',
            '{"w": {"dtype": "F32", "shape": [6], "data_offsets": [0, 24]},'
            ' "w": {"dtype": "F32", "shape": [6], "data_offsets": [0, 24]}}',
            '{"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]},'
            ' "b": {"dtype": "F32", "shape": [4], "data_offsets": [8, 24]}}',
            '{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},'
            ' "b": {"dtype": "F32", "shape": [2], "data_offsets": [16, 24]}}',
            '{"a":' * 100_000,
            '{"w": {"dtype": "F32", "shape": [%s], "data_offsets": [0, 24]}}' % ("9" * 5000),
        ],
        ids=lambda header: header[:70],
    )
    def test_a_header_that_lies_is_refused(self, header: str) -> None:
        assert found(with_header(header, W)) is None

    @pytest.mark.parametrize("length", [0, 1, 2**63, 2**64 - 1, 17 * 1024 * 1024, len(GOOD_SAFE)])
    def test_a_length_that_lies_is_refused(self, length: int) -> None:
        assert found(struct.pack("<Q", length) + GOOD_SAFE[8:]) is None


class TestNpy:
    @pytest.mark.parametrize(
        "dtype",
        [
            *("?", "u1", "<u2", "<u4", "<u8", "i1", "<i2", "<i4", "<i8"),
            *("<f2", "<f4", "<f8", "<c8", "<c16"),
        ],
    )
    @pytest.mark.parametrize("shape", [(), (5,), (2, 3), (0, 4)])
    def test_arrays_are_found(self, dtype: str, shape: tuple[int, ...]) -> None:
        array = np.ones(shape, dtype)
        data = npy(array)
        assert contents(data) == {"": (array.dtype.name, shape, array.tobytes())}

    @pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
    def test_every_version_is_read(self, version: tuple[int, int]) -> None:
        assert contents(npy(np.arange(3), version=version))[""][1] == (3,)

    @pytest.mark.parametrize(
        "array",
        [
            np.asfortranarray(np.ones((2, 3))),
            np.ones(3, ">f4"),
            np.ones(3, [("a", "<f4")]),
            np.array(["a"]),
            np.array(["2000-01-01"], "datetime64[D]"),
        ],
        ids=lambda array: array.dtype.str,
    )
    def test_arrays_in_another_form_are_opaque(self, array: Any) -> None:
        assert found(npy(array)) is None

    def test_objects_are_opaque(self, tmp_path: Path) -> None:
        array = np.array([make.Touch(str(tmp_path / "made"))], dtype=object)
        assert found(npy(array, allow_pickle=True)) is None
        assert not (tmp_path / "made").exists()

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            (b"(3,)", b"(4,)"),
            (b"(3,)", b"(3 )"),
            (b"(3,)", b"3,, "),
            (b"'<f8'", b"'<f4'"),
            (b"'<f8'", b"'|O '"),
            (b"False", b"True "),
            (b"False", b"__x__"),
            (b"\x93NUMPY\x01", b"\x93NUMPY\x04"),
            (b"\x01\x00v\x00", b"\x01\x00w\x00"),
            (b"\x01\x00v\x00", b"\x01\x00\xff\xff"),
        ],
    )
    def test_a_header_that_lies_is_refused(self, old: bytes, new: bytes) -> None:
        data = npy(np.ones(3))
        assert old in data
        assert found(data) is not None
        assert found(data.replace(old, new, 1)) is None


class TestTorch:
    def test_tensors_are_found_where_they_lie(self) -> None:
        assert contents(GOOD_TORCH) == {
            "w": ("float32", (2, 3), W),
            "b": ("int64", (2,), bytes(16)),
        }

    def test_names_come_from_the_nesting(self) -> None:
        inner = b"}(" + make.text("w") + tensor("0", (6,)) + make.number(7)
        inner += b"](" + make.text("x") + tensor("0", (6,)) + b"eu"
        data = archive(state_dict({"model": inner, "epoch": make.number(3)}), {"0": W})
        rows = found(data)
        assert rows is not None
        assert [row.name for row in rows] == ["model.w", "model.7.1"]
        assert rows[0].offset == rows[1].offset

    @pytest.mark.parametrize(
        "pushed",
        [
            tensor("0", (3, 2), strides=(1, 3)),
            tensor("0", (3,), count=6),
            tensor("0", (3,), count=6, start=3),
            tensor("0", (2, 2), strides=(2, 1), count=6),
            tensor("0", (6, 2), strides=(1, 0), count=6),
        ],
    )
    def test_what_does_not_fill_its_storage_row_by_row_has_no_place(self, pushed: bytes) -> None:
        rows = found(archive(state_dict({"w": pushed}), {"0": W}))
        assert rows is not None
        assert [row.offset for row in rows] == [None]

    def test_a_stride_along_one_element_means_nothing(self) -> None:
        rows = found(archive(state_dict({"w": tensor("0", (1, 6), strides=(99, 1))}), {"0": W}))
        assert rows is not None
        assert rows[0].offset is not None

    @pytest.mark.parametrize(
        "pickled",
        [
            b"",
            b"\x80\x02",
            b"\x80\x02}",
            b"\x80\x02.",
            b"\x80\x02}}.",
            b"\x80\x02}..",
            b"\x80\x03}.",
            b"\x80\x02}\x80\x02.",
            b"\x80\x02(.",
            b"\x80\x02t.",
            b"\x80\x02}(\x89u.",
            b"\x80\x02}h\x07.",
            b"\x80\x02q\x00}.",
            b"\x80\x02R.",
            b"\x80\x02)R.",
            b"\x80\x02]s.",
            b"\x80\x02}a.",
            b"\x80\x02]}b.",
            b"\x80\x02Q.",
            b"\x80\x02" + make.text("storage") + b"\x85Q.",
            b"\x80\x02\xff.",
            b"\x80\x02X\xff\xff\xff\xff.",
            b"\x80\x02\x8e" + b"\xff" * 8 + b".",
            b"\x80\x02L99L\n.",
            b"\x80\x02I" + b"9" * 5000 + b"\n.",
            b"\x80\x02P1\n.",
            state_dict({"w": make.named("torch FloatTensor")}),
            state_dict({"w": make.named("os system") + make.text("true") + b"\x85R"}),
            state_dict({"w": make.named("torch._utils _rebuild_parameter") + b")R"}),
            state_dict({"w": make.named("collections OrderedDict") + make.number(1) + b"\x85R"}),
            state_dict({"w": make.named("torch._utils _rebuild_tensor_v2") + b")R"}),
            state_dict({"w": tensor("0", (2, -3), count=6)}),
            state_dict({"w": tensor("0", (6,), strides=(1, 1))}),
            state_dict({"w": tensor("0", (6,), start=-1)}),
            state_dict({"w": tensor("0", (6,), start=7)}),
            state_dict({"w": tensor("0", (5,))}),
            state_dict({"w": tensor("0", (6,), count=-6)}),
            state_dict({"w": tensor("1", (6,))}),
            state_dict({"w": tensor("../0", (6,))}),
            state_dict({"w": tensor("0", (6,), kind="QInt8Storage")}),
            state_dict({"w": tensor("0", (6,), rebuild="_rebuild_tensor_v3")}),
            state_dict({"\ud800": tensor("0", (6,))}),
            state_dict({"n" * 2000: tensor("0", (6,))}),
            pickle.dumps({"a": 1}, protocol=4),
            pickle.dumps({"a": 1}, protocol=0),
        ],
        ids=lambda pickled: repr(pickled)[:60],
    )
    def test_a_pickle_that_is_no_state_dict_is_refused(self, pickled: bytes) -> None:
        assert found(archive(pickled, {"0": W})) is None

    def test_nothing_is_executed(self, tmp_path: Path) -> None:
        canary = make.canary(str(tmp_path / "made"))
        assert found(archive(canary, {"0": W})) is None
        assert not (tmp_path / "made").exists()
        pickle.loads(canary)  # the canary does sing
        assert (tmp_path / "made").exists()

    def test_a_deep_pickle_is_refused(self) -> None:
        deep = b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b"."
        assert found(archive(deep, {})) is None

    def test_a_pickle_that_multiplies_itself_is_entered_once(self) -> None:
        # Each list holds the one before ten times: 10^30 paths lead to the tensor.
        pickled = b"\x80\x02(" + tensor("0", (6,)) + b"q\x00"
        for level in range(30):
            pickled += b"](" + bytes([ord("h"), level]) * 10 + b"eq" + bytes([level + 1])
        rows = found(archive(pickled + b"t.", {"0": W}))
        assert rows is not None
        assert len(rows) == 1 + 10

    def test_a_pickle_of_too_many_operations_is_refused(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("cas.objects.containers.statedict.MAX_OPERATIONS", 20)
        assert found(GOOD_TORCH) is None

    def test_only_little_endian_archives_are_read(self) -> None:
        pickled = state_dict({"w": tensor("0", (6,))})
        assert found(archive(pickled, {"0": W}, order="little")) is not None
        assert found(archive(pickled, {"0": W}, order="big")) is None

    def test_compressed_archives_are_refused(self) -> None:
        pickled = state_dict({"w": tensor("0", (6,))})
        assert found(archive(pickled, {"0": W}, method=zipfile.ZIP_DEFLATED)) is None

    def test_other_archives_are_opaque(self) -> None:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as made:
            made.writestr("a/b.txt", "hello")
        assert found(out.getvalue()) is None
        assert found(b"PK\x05\x06" + bytes(18)) is None

    def test_members_over_one_another_are_refused(self) -> None:
        data = bytearray(GOOD_TORCH)
        entries = [at for at in range(len(data)) if data[at : at + 4] == b"PK\x01\x02"]
        # The second storage's directory entry points at the first one's header.
        first, second = entries[2], entries[3]
        data[second + 42 : second + 46] = data[first + 42 : first + 46]
        assert found(bytes(data)) is None

    @pytest.mark.parametrize(("at", "width"), [(8, 2), (20, 4), (24, 4), (42, 4)])
    def test_a_directory_that_lies_is_refused(self, at: int, width: int) -> None:
        data = bytearray(GOOD_TORCH)
        entry = [n for n in range(len(data)) if data[n : n + 4] == b"PK\x01\x02"][2]
        data[entry + at : entry + at + width] = b"\x01" + b"\x02" * (width - 1)
        assert found(bytes(data)) is None

    def test_a_directory_of_any_size_is_not_read_whole(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("cas.objects.containers.torchzip.MAX_HEADER", -256 * 1024 + 100)
        assert found(GOOD_TORCH) is None

    def test_what_torch_saves_is_found(self, tmp_path: Path) -> None:
        torch = pytest.importorskip("torch")
        weight = torch.arange(12.0).reshape(3, 4)
        value = {
            "model": torch.nn.Linear(4, 2).state_dict(),
            "half": weight.to(torch.bfloat16),
            "new": weight.to(torch.float8_e5m2),
            "u16": torch.tensor([1, 2, 3], dtype=torch.uint16),
            "parameter": torch.nn.Parameter(weight),
            "tied": weight,
            "scalar": torch.tensor(2.5),
            "empty": torch.zeros(0, 3),
            "view": weight[1:],
            "turned": weight.t(),
            "conj": torch.ones(2, dtype=torch.complex64).conj(),
            "values": [1, 2.5, None, True, "text", (1, 2, 3, 4), 10**20],
        }
        path = tmp_path / "saved.pt"
        torch.save(value, path)
        rows = tensors(path)
        assert rows is not None
        by_name = {row.name: row for row in rows}
        assert {name for name, row in by_name.items() if row.offset is None} == {
            *("view", "turned", "conj"),
        }
        data = path.read_bytes()
        for name, row in by_name.items():
            if row.offset is None:
                continue
            saved = value["model"][name[6:]] if name.startswith("model.") else value[name]
            assert row.dtype == str(saved.dtype).removeprefix("torch.")
            assert row.shape == tuple(saved.shape)
            raw = saved.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
            assert data[row.offset : row.offset + row.nbytes] == raw


def test_other_files_have_no_tensors(tmp_path: Path) -> None:
    for data in (b"", b"hello", b"\x89PNG\r\n\x1a\n" + bytes(100), b"{" * 100, os.urandom(64)):
        path = tmp_path / "file"
        path.write_bytes(data)
        assert tensors(path) is None


GOOD: dict[str, Callable[[], bytes]] = {
    "safetensors": lambda: GOOD_SAFE,
    "npy": lambda: npy(np.arange(6.0)),
    "torch": lambda: GOOD_TORCH,
}


@pytest.mark.parametrize("kind", GOOD)
def test_a_file_cut_short_is_opaque(kind: str) -> None:
    data = GOOD[kind]()
    assert found(data) is not None
    for length in range(len(data)):
        assert found(data[:length]) is None


@pytest.mark.parametrize("kind", GOOD)
@given(changes=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=4))
def test_damage_never_leads_outside_of_the_file(kind: str, changes: list[tuple[int, int]]) -> None:
    data = bytearray(GOOD[kind]())
    for at, byte in changes:
        data[at % len(data)] = byte
    for row in found(bytes(data)) or ():
        assert row.offset is None or 0 <= row.offset <= len(data) - row.nbytes
