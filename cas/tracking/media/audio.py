"""Audio: samples as WAV, bit for bit; audio files as they are."""

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cas.errors import CorruptionError, InvalidInputError, UnsupportedError
from cas.tracking.media.content import Content, Prepared, as_array, clean, ready, whole

FORMATS: Final = {".wav": "wav", ".mp3": "mp3", ".flac": "flac", ".ogg": "ogg"}
PCM: Final = 1
FLOAT: Final = 3
# Format tag and bits of a sample, by NumPy's name.
TYPES: Final = {
    "uint8": (PCM, 8), "int16": (PCM, 16), "int32": (PCM, 32), "float32": (FLOAT, 32),
    "float64": (FLOAT, 64),
}  # fmt: skip
MAX_BYTES: Final = 2**32 - 256


@dataclass(frozen=True, slots=True, eq=False)
class Audio:
    """Sound to log: samples (n, or n x channels) at a rate in Hz, or the path of an audio file."""

    data: Any
    rate: int = 0
    caption: str = ""

    def __eq__(self, other: object) -> bool:
        import numpy as np

        if not isinstance(other, Audio):
            return NotImplemented
        return (
            self.rate == other.rate
            and self.caption == other.caption
            and np.array_equal(np.asarray(self.data), np.asarray(other.data))
        )

    __hash__ = None  # type: ignore[assignment]  # arrays have none


def prepare(audio: Audio) -> Prepared:
    """Copy a sound; raise InvalidInputError for what is none."""
    options = {"caption": clean(str(audio.caption))} if audio.caption else {}
    if isinstance(audio.data, str | os.PathLike):
        path = Path(os.fspath(audio.data))
        format = FORMATS.get(path.suffix.lower())
        if format is None:
            raise InvalidInputError(f"{path} is no audio file: {', '.join(FORMATS)}")
        try:
            return ready(Content(format, path.read_bytes(), options))
        except OSError as error:
            raise InvalidInputError(f"cannot read {path}: {error.strerror}") from error
    rate = whole(audio.rate, "the rate of audio, in Hz,")
    if not 0 < rate < 2**32:
        raise InvalidInputError(f"audio needs its rate in Hz, not {rate}")
    samples = as_array(audio.data, "audio")
    if samples.dtype.kind == "c":
        raise InvalidInputError("audio has no complex numbers")
    if samples.ndim not in {1, 2} or samples.size * 8 > MAX_BYTES:
        raise InvalidInputError("audio is n samples, or n x channels, of less than 4 GB")
    if samples.ndim == 2 and not 0 < samples.shape[1] < 256:
        raise InvalidInputError(f"audio of {samples.shape[1]} channels: its shape is n x channels")
    options["axes"] = samples.ndim
    return Prepared(samples.nbytes, lambda: Content("wav", _wav(samples, rate), options))


def decode(format: str, data: bytes, options: dict[str, Any]) -> Audio:
    """Return the samples as they were logged."""
    import numpy as np

    if format != "wav":
        raise UnsupportedError(f"audio in the format {format} is read with .bytes()")
    tag, channels, rate, bits, raw = wav(data)
    names = [name for name, known in TYPES.items() if known == (tag, bits)]
    if not names or channels == 0:
        raise UnsupportedError("a WAV file in another form than cas writes: use .bytes()")
    samples = np.frombuffer(raw, np.dtype(names[0]).newbyteorder("<")).astype(names[0])
    if options.get("axes") != 1:
        samples = samples.reshape(-1, channels)
    return Audio(samples, rate, options.get("caption", ""))


def _wav(samples: Any, rate: int) -> bytes:
    import numpy as np

    if samples.dtype.name not in TYPES:
        samples = samples.astype(np.float32)
    tag, bits = TYPES[samples.dtype.name]
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    frame = channels * bits // 8
    raw: bytes = samples.astype(samples.dtype.newbyteorder("<")).tobytes()
    about = struct.pack("<HHIIHH", tag, channels, rate, rate * frame % 2**32, frame, bits)
    fact = b""
    if tag == FLOAT:
        about += struct.pack("<H", 0)
        fact = b"fact" + struct.pack("<II", 4, len(samples))
    head = b"WAVEfmt " + struct.pack("<I", len(about)) + about + fact
    pad = b"\0" * (len(raw) % 2)
    body = head + b"data" + struct.pack("<I", len(raw)) + raw + pad
    return b"RIFF" + struct.pack("<I", len(body)) + body


def wav(data: bytes) -> tuple[int, int, int, int, bytes]:
    """Return format tag, channels, rate, bits and samples of a WAV file; or CorruptionError."""
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        raise CorruptionError("not a WAV file")
    at, about = 12, None
    while at + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, at)
        if name == b"fmt " and size >= 16 and at + 24 <= len(data):
            tag, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", data, at + 8)
            about = tag, channels, rate, bits
        if name == b"data" and about is not None and at + 8 + size <= len(data):
            return (*about, data[at + 8 : at + 8 + size])
        at += 8 + size + size % 2
    raise CorruptionError("a WAV file that is cut short")
