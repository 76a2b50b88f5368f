"""Images: PNG of arrays, tensors and PIL images; image files as they are."""

import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cas.errors import CorruptionError, InvalidInputError, UnsupportedError
from cas.tracking.captured.capture import as_data
from cas.tracking.media.content import Content, Prepared, as_array, clean, library, ready

FORMATS: Final = {
    ".png": "png", ".jpg": "jpg", ".jpeg": "jpg", ".gif": "gif", ".webp": "webp", ".svg": "svg"
}  # fmt: skip
CHANNELS: Final = frozenset({1, 3, 4})
AXES: Final = ("HWC", "CHW")
PLACES: Final = {"HW": 0, "HWC": 2, "CHW": 0}  # of the channels
# What PNG has no such pixels for.
MODES: Final = {
    "CMYK": "RGB", "YCbCr": "RGB", "HSV": "RGB", "LAB": "RGB", "RGBX": "RGB", "RGBa": "RGBA",
    "PA": "RGBA", "La": "LA",
}  # fmt: skip
LEVEL: Final = 4  # of PNG's compression: beyond it, time doubles for a few percent


@dataclass(frozen=True, slots=True, eq=False)
class Image:
    """An image to log: an array, a tensor, a PIL image or the path of an image file.

    `axes` says where an array has its channels, "HWC" or "CHW"; without it they are looked for at
    the end, then at the front, for a tensor at the front first. `boxes` are dicts of plain data.
    """

    data: Any
    caption: str = ""
    boxes: Any = None
    axes: str | None = None


def prepare(image: Image) -> Prepared:
    """Copy an image; raise InvalidInputError for what is none."""
    options: dict[str, Any] = {}
    if image.caption:
        options["caption"] = clean(str(image.caption))
    if image.boxes is not None:
        options["boxes"] = _boxes(image.boxes)
    data = image.data
    if isinstance(data, str | os.PathLike):
        return ready(_file(Path(os.fspath(data)), options))
    if library(data) == "PIL":
        options["of"] = "pil"
        if data.mode in {"I", "F"}:  # PNG has no such numbers: they go as those of an array do
            return _prepared(as_array(data, "an image"), "HW", options)
        copied = data.copy()
        size = copied.width * copied.height * len(copied.getbands())
        return Prepared(size, lambda: Content("png", _png(copied), options))
    array = as_array(data, "an image")
    axes = _axes(array.shape, image.axes, tensor=hasattr(data, "detach"))
    options["of"] = "array"
    return _prepared(array, axes, options)


def _prepared(array: Any, axes: str, options: dict[str, Any]) -> Prepared:
    if array.size == 0 or array.dtype.kind == "c":
        raise InvalidInputError("an image has pixels, and no complex numbers")
    return Prepared(array.nbytes, lambda: _of_array(array, axes, options))


def decode(format: str, data: bytes, options: dict[str, Any]) -> Any:
    """Return an array where one was logged, else the image of PIL, of SVG its text."""
    if format == "svg":
        return data.decode()
    pil = _pil()
    try:
        opened = pil.open(io.BytesIO(data))
        opened.load()
    except (OSError, SyntaxError, ValueError, pil.DecompressionBombError) as error:
        raise CorruptionError(f"not an image that can be read: {error}") from error
    if options.get("of") != "array":
        return opened.copy()  # without the file that it was read from
    import numpy as np

    array = np.array(opened)
    return array.astype(np.uint16) if opened.mode.startswith("I") else array


def size(data: bytes) -> tuple[int, int, int]:
    """Return width, height and channels of a picture that is no SVG; its pixels are not read."""
    pil = _pil()
    try:
        with pil.open(io.BytesIO(data)) as opened:
            width, height = opened.size
            return width, height, len(opened.getbands())
    except (OSError, SyntaxError, ValueError, pil.DecompressionBombError) as error:
        raise CorruptionError(f"not an image that can be read: {error}") from error


def _file(path: Path, options: dict[str, Any]) -> Content:
    format = FORMATS.get(path.suffix.lower())
    if format is None:
        known = ", ".join(sorted(FORMATS))
        raise InvalidInputError(f"{path} is no image file: their names end in {known}")
    try:
        return Content(format, path.read_bytes(), options)
    except OSError as error:
        raise InvalidInputError(f"cannot read {path}: {error.strerror}") from error


def _boxes(given: Any) -> Any:
    if not isinstance(given, list | tuple) or not all(isinstance(one, Mapping) for one in given):
        raise InvalidInputError(f"the boxes of an image are a list of dicts, not {given!r}")
    return clean(as_data(given))


def _axes(shape: tuple[int, ...], said: str | None, *, tensor: bool) -> str:
    """Return which axes an image has; raise InvalidInputError where they make none."""
    if said not in {None, *PLACES}:
        raise InvalidInputError(f"the axes of an image are HW, HWC or CHW, not {said!r}")
    if len(shape) == 2 and said in {None, "HW"}:
        return "HW"
    if len(shape) != 3 or said == "HW":
        raise InvalidInputError(
            f"an image has the axes HW, HWC or CHW, not the shape {shape}: log one at a time"
        )
    order = [said] if said is not None else [*(AXES[::-1] if tensor else AXES)]
    fits = [axes for axes in order if shape[PLACES[axes]] in CHANNELS]
    if not fits:
        raise InvalidInputError(f"an image of shape {shape} has no axis of 1, 3 or 4 channels")
    return fits[0]


def _of_array(array: Any, axes: str, options: dict[str, Any]) -> Content:
    if axes == "CHW":
        array = array.transpose(1, 2, 0)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    array, options = _eight_bits(array, options)
    import numpy as np

    return Content("png", _png(_pil().fromarray(np.ascontiguousarray(array))), options)


def _eight_bits(array: Any, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return numbers as PNG takes them; what was stretched for it stands in the options."""
    import numpy as np

    if array.dtype == np.uint8 or (array.dtype in (np.uint16, bool) and array.ndim == 2):
        return array, options
    numbers = np.nan_to_num(array.astype(np.float64), posinf=0, neginf=0)
    low, high = float(numbers.min()), float(numbers.max())
    top = 1.0 if array.dtype.kind in "fb" else 255.0
    if low < 0 or high > top:
        options = options | {"scaled": [low, high]}
        numbers, top = numbers - low, (high - low) or 1.0
    return np.rint(numbers * (255 / top)).astype(np.uint8), options


def _png(image: Any) -> bytes:
    target = io.BytesIO()
    mode = MODES.get(image.mode)
    (image.convert(mode) if mode else image).save(target, "PNG", compress_level=LEVEL)
    return target.getvalue()


def _pil() -> Any:
    try:
        import PIL.Image
    except ImportError as error:
        raise UnsupportedError("images need Pillow: pip install 'cas-lineage[media]'") from error
    return PIL.Image
