"""Tensor files are read as data, strictly; anything odd about one makes it opaque bytes."""

import io
import os
import pickle
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cas.objects.containers.files import Contents, FoundTensor, contents_in
from tests.support import tensorfiles as make
from tests.support.tensorfiles import (
    archive,
    gguf,
    gguf_text,
    npz,
    safetensors,
    state_dict,
    tensor,
    with_header,
)

W = np.arange(6, dtype="<f4").tobytes()
GOOD_SAFE = safetensors({"w": ("F32", [2, 3], W), "n": ("I64", [], b"\1" * 8)})
GOOD_TORCH = archive(
    state_dict({"w": tensor("0", (2, 3)), "b": tensor("1", (2,), kind="LongStorage")}),
    {"0": W, "1": bytes(16)},
)


GGUF_DATA = {
    "w": (0, [20, 10], np.arange(200, dtype="<f4").tobytes()),
    "q": (8, [32, 2], bytes(range(68))),
    "s": (30, [3], b"123456"),
}
VALUES = [
    ("general.name", 8, gguf_text("test")),
    ("tokens", 9, struct.pack("<IQ", 8, 3) + gguf_text("a") * 3),
    ("scores", 9, struct.pack("<IQ", 6, 2) + bytes(8)),
    ("flag", 7, b"\1"),
]
GOOD_GGUF = gguf(GGUF_DATA, VALUES)


def look(data: bytes) -> Contents | None:
    return contents_in(io.BytesIO(data))


def found(data: bytes) -> list[FoundTensor] | None:
    contents = look(data)
    return None if contents is None else list(contents.tensors)


def spans(data: bytes) -> list[tuple[bytes, str]]:
    contents = look(data)
    assert contents is not None
    return [(data[s.offset : s.offset + s.nbytes], s.dtype) for s in contents.spans]


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


GOOD: dict[str, Callable[[], bytes]] = {
    "safetensors": lambda: GOOD_SAFE,
    "npy": lambda: npy(np.arange(6.0)),
    "torch": lambda: GOOD_TORCH,
    "npz": lambda: npz({"a": np.arange(6.0), "b": np.ones(50)}),
    "gguf": lambda: GOOD_GGUF[: -(-len(GGUF_DATA["s"][2]) % 32)],
}


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
            (b"False", b"Fals3"),
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

    def test_bytes_that_no_member_has_are_refused(self) -> None:
        out = io.BytesIO(GOOD_TORCH)
        with zipfile.ZipFile(out, "a") as more:
            assert more.fp is not None
            more.fp.seek(more.start_dir)
            more.fp.write(bytes(25))
            more.start_dir += 25
            more.writestr("archive/more", b"")
        with zipfile.ZipFile(out) as check:
            assert check.testzip() is None
        assert found(out.getvalue()) is None

    @pytest.mark.parametrize(("at", "width"), [(8, 2), (20, 4), (24, 4), (42, 4)])
    def test_a_directory_that_lies_is_refused(self, at: int, width: int) -> None:
        data = bytearray(GOOD_TORCH)
        entry = [n for n in range(len(data)) if data[n : n + 4] == b"PK\x01\x02"][2]
        data[entry + at : entry + at + width] = b"\x01" + b"\x02" * (width - 1)
        assert found(bytes(data)) is None

    def test_a_directory_of_any_size_is_not_read_whole(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("cas.objects.containers.zips.MAX_HEADER", 100)
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
        rows = found(path.read_bytes())
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

    def test_a_storage_is_cut_whole_whoever_looks_at_it(self) -> None:
        large = np.arange(100, dtype="<f4").tobytes()
        two = {
            "a": tensor("0", (50,), count=100),
            "b": tensor("0", (50,), count=100, start=50),
            "c": tensor("1", (100,)),
        }
        data = archive(state_dict(two), {"0": large, "1": large, "2": large})
        assert spans(data) == [(large, "float32"), (large, "float32"), (large, "")]

    def test_a_storage_without_a_tensor_has_its_own_dtype(self) -> None:
        large = np.arange(100, dtype="<i8").tobytes()
        alone = make.storage("0", 100, "LongStorage")
        assert spans(archive(state_dict({"s": alone}), {"0": large})) == [(large, "int64")]

    def test_a_storage_of_two_dtypes_has_none(self, tmp_path: Path) -> None:
        torch = pytest.importorskip("torch")
        path = tmp_path / "saved.pt"
        whole = torch.zeros(100, dtype=torch.uint16)
        torch.save({"a": whole, "b": torch.ones(200, dtype=torch.uint16)}, path)
        assert [dtype for _, dtype in spans(path.read_bytes())] == ["uint16", "uint16"]
        torch.save({"a": whole, "b": whole.view(torch.float8_e5m2)}, path)
        assert [dtype for _, dtype in spans(path.read_bytes())] == [""]


class TestSpans:
    def test_small_tensors_are_not_cut_out(self) -> None:
        at, above = bytes(64), bytes(65)
        data = safetensors({"a": ("U8", [64], at), "b": ("U8", [65], above)})
        assert spans(data) == [(above, "uint8")]

    def test_tied_tensors_are_one_span(self) -> None:
        large = np.arange(100, dtype="<f4").tobytes()
        two = {"a": tensor("0", (100,)), "b": tensor("0", (10, 10))}
        assert spans(archive(state_dict(two), {"0": large})) == [(large, "float32")]

    def test_an_array_in_the_order_of_fortran_is_numbers_but_no_tensor(self) -> None:
        array = np.asfortranarray(np.arange(30.0).reshape(5, 6))
        [row] = found(npy(array)) or []
        assert (row.dtype, row.shape, row.offset) == ("float64", (5, 6), None)
        assert spans(npy(array)) == [(array.tobytes("F"), "float64")]


class TestNpz:
    ARRAYS: ClassVar = {"w": np.arange(60.0).reshape(6, 10), "n": np.arange(100, dtype="<i4")}

    def test_arrays_are_found_by_their_names(self) -> None:
        data = npz(self.ARRAYS)
        assert contents(data) == {
            name: (array.dtype.name, array.shape, array.tobytes())
            for name, array in self.ARRAYS.items()
        }
        assert spans(data) == [
            (array.tobytes(), array.dtype.name) for array in self.ARRAYS.values()
        ]

    def test_what_is_compressed_or_odd_stays_opaque(self) -> None:
        out = io.BytesIO(npz(self.ARRAYS | {"texts": np.array(["a", "b"])}))
        with zipfile.ZipFile(out, "a", zipfile.ZIP_DEFLATED) as more:
            more.writestr("small.npy", npy(np.zeros(1000)))
        assert contents(out.getvalue()).keys() == self.ARRAYS.keys()
        out = io.BytesIO()
        np.savez_compressed(out, w=self.ARRAYS["w"])
        assert look(out.getvalue()) is None

    def test_an_array_that_lies_about_its_size_is_left_out(self) -> None:
        data = npz(self.ARRAYS)
        assert contents(data.replace(b"(6, 10)", b"(6, 11)")).keys() == {"n"}

    def test_pickled_objects_are_left_alone(self, tmp_path: Path) -> None:
        bad = np.array([make.Touch(str(tmp_path / "made"))], dtype=object)
        assert contents(npz({"bad": bad, **self.ARRAYS})).keys() == self.ARRAYS.keys()
        assert not (tmp_path / "made").exists()

    def test_large_archives_are_read(self) -> None:
        # The sizes of NumPy's own members stand in 32 bits; these do not.
        data = bytearray(npz(self.ARRAYS))
        entry = data.index(b"PK\x01\x02")
        (length,) = struct.unpack_from("<H", data, entry + 28)
        sizes = data[entry + 20 : entry + 28]
        extra = struct.pack("<HHQQ", 1, 16, *struct.unpack("<II", sizes))
        data[entry + 20 : entry + 28] = b"\xff" * 8
        data[entry + 30 : entry + 32] = struct.pack("<H", len(extra))
        data[entry + 46 + length : entry + 46 + length] = extra
        end = data.rindex(b"PK\x05\x06")
        (size, start) = struct.unpack_from("<II", data, end + 12)
        count = len(self.ARRAYS)
        large = struct.pack(
            "<4sQHHIIQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, size + len(extra), start
        )
        locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, end, 1)
        last = struct.pack("<4sHHHHIIH", b"PK\x05\x06", *[0, 0, *[0xFFFF] * 2, *[2**32 - 1] * 2, 0])
        made = bytes(data[:end]) + large + locator + last
        with zipfile.ZipFile(io.BytesIO(made)) as check:
            assert check.testzip() is None
        assert contents(made).keys() == self.ARRAYS.keys()
        for cut in (4, 8, 16):  # too little in the extra field
            short = made.replace(extra, struct.pack("<HH", 1, 16 - cut) + extra[4:])
            assert look(short) is None or contents(short).keys() < self.ARRAYS.keys()


class TestGguf:
    def test_tensors_are_found_where_they_lie(self) -> None:
        assert contents(GOOD_GGUF) == {
            "w": ("float32", (10, 20), GGUF_DATA["w"][2]),
            "q": ("Q8_0", (2, 32), GGUF_DATA["q"][2]),
            "s": ("bfloat16", (3,), GGUF_DATA["s"][2]),
        }
        assert spans(GOOD_GGUF) == [
            (GGUF_DATA["w"][2], "float32"),
            (GGUF_DATA["q"][2], "uint8"),
        ]

    def test_an_alignment_of_its_own_is_kept(self) -> None:
        values = [("general.alignment", 4, struct.pack("<I", 128))]
        data = gguf(GGUF_DATA, values, alignment=128)
        assert contents(data)["q"][2] == GGUF_DATA["q"][2]

    def test_without_padding_at_its_end_it_is_read_too(self) -> None:
        assert len(GGUF_DATA["s"][2]) % 32
        assert contents(GOOD_GGUF[: -(-len(GGUF_DATA["s"][2]) % 32)]).keys() == GGUF_DATA.keys()
        assert look(GOOD_GGUF + b"\0") is None

    @pytest.mark.parametrize(
        "values",
        [
            [("a", 13, b"")],
            [("a", 9, struct.pack("<IQ", 9, 1))],
            [("a", 9, struct.pack("<IQ", 0, 2**63))],
            [("a", 9, struct.pack("<IQ", 8, 2**63))],
            [("a", 8, struct.pack("<Q", 2**64 - 1))],
            [("a" * 2000, 0, b"\0")],
            [("a", 0, b"\0"), ("a", 0, b"\0")],
            [("general.alignment", 5, struct.pack("<I", 32))],
            [("general.alignment", 4, struct.pack("<I", 0))],
            [("general.alignment", 4, struct.pack("<I", 33))],
            [("general.alignment", 4, struct.pack("<I", 2**31))],
        ],
        ids=lambda values: repr(values)[:60],
    )
    def test_values_that_lie_are_refused(self, values: Any) -> None:
        assert look(gguf(GGUF_DATA, values)) is None

    @pytest.mark.parametrize(
        "change",
        [
            {"version": 1},
            {"version": 4},
            {"version": 3 << 24},
            {"claims": (2**63, None)},
            {"claims": (4, None)},
            {"claims": (2, None)},
            {"claims": (None, 2**63)},
            {"claims": (None, 9)},
        ],
        ids=repr,
    )
    def test_counts_that_lie_are_refused(self, change: Any) -> None:
        assert look(gguf(GGUF_DATA, **change)) is None

    @pytest.mark.parametrize(
        "row",
        [
            (0, [20, 10], bytes(804)),
            (0, [2**40, 2**40], bytes(800)),
            (0, [0, 10], b""),
            (0, [1, 1, 1, 1, 200], bytes(800)),
            (8, [33, 2], bytes(70)),
            (5, [200], bytes(800)),
            (99, [200], bytes(800)),
        ],
        ids=lambda row: repr(row[:2]),
    )
    def test_tensors_that_lie_are_refused(self, row: Any) -> None:
        assert look(gguf({"w": row, "v": (0, [20], bytes(80))})) is None


def test_numpy_archives_and_gguf_are_counted_on() -> None:
    assert {look(make()).kind for make in GOOD.values()} == {  # type: ignore[union-attr]
        *("safetensors", "npy", "torch.save", "npz", "GGUF"),
    }


class TestMemory:
    """What a header says is never taken for a size to allocate."""

    @pytest.mark.parametrize(
        "data",
        [
            with_header('{"a":[' + "{}," * 300_000 + "{}]}", W),
            with_header('{"a":[' + "[]," * 300_000 + "[]]}", W),
            with_header('{"w": {"dtype": "F32", "shape": [99999999], "data_offsets": [0, 9]}}', W),
            archive(b"\x80\x02" + b"}" * 1_000_000 + b".", {}),
            archive(b"\x80\x02X\xff\xff\xff\x7f" + bytes(1000), {}),
            gguf(GGUF_DATA, claims=(200_000, None)),
            gguf(GGUF_DATA, [("a", 9, struct.pack("<IQ", 8, 3_000_000))]),
            b"\x93NUMPY\x02\0" + b"\xff\xff\xff\xff" + bytes(100),
        ],
        ids=range(8),
    )
    def test_a_hostile_header_takes_little(self, data: bytes) -> None:
        file = io.BytesIO(data)
        contents_in(io.BytesIO(GOOD_GGUF))  # what is imported does not count
        tracemalloc.start()
        try:
            assert contents_in(file) is None
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 64 << 20

    @pytest.mark.parametrize("count", [0, 1, 0xFFFE])
    def test_a_zip_that_claims_another_number_of_members_is_refused(self, count: int) -> None:
        data = bytearray(GOOD_TORCH)
        data[-14:-10] = struct.pack("<HH", count, count)
        assert look(bytes(data)) is None


def test_other_files_have_no_tensors() -> None:
    for data in (b"", b"hello", b"\x89PNG\r\n\x1a\n" + bytes(100), b"{" * 100, os.urandom(64)):
        assert look(data) is None


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
    contents = look(bytes(data))
    for row in contents.tensors if contents else ():
        assert row.offset is None or 0 <= row.offset <= len(data) - row.nbytes
    end = 0
    for span in contents.spans if contents else ():
        assert span.offset >= end
        assert span.nbytes > 64
        end = span.offset + span.nbytes
    assert end <= len(data)
