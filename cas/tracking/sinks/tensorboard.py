"""Event files for TensorBoard: metrics, texts, images, figures, histograms, sounds and params.

TensorBoard's own messages are used, and nothing else of it: they load in a tenth of a second, and
what is written is written here, on the sink's thread.
"""

import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import IO, Any, Final

from cas.errors import CorruptionError, InvalidInputError
from cas.tracking.media import histogram
from cas.tracking.media.audio import wav
from cas.tracking.media.image import size
from cas.tracking.sinks.records import record

PICTURES: Final = frozenset({"png", "jpg", "jpeg", "gif"})
_files = count()


class TensorBoard:
    """A folder of event files, at EXPERIMENT/RUN below `folder`, as `tensorboard --logdir` reads.

    Tables, curves, embeddings, graphs, figures of plotly and SVG stay out: it has no place for
    them, or none that they fit in. Raises InvalidInputError where `tensorboard` is not installed.
    """

    contents: Final = frozenset({"text", "image", "figure", "histogram", "audio"})

    def __init__(self, folder: Path) -> None:
        if find_spec("tensorboard") is None:
            raise InvalidInputError(
                "the sink tensorboard needs TensorBoard: pip install 'cas-lineage[tensorboard]'"
            )
        self._top = folder
        self._folder = folder
        self._file: IO[bytes] | None = None
        self._after: int | None = None
        self._params: dict[str, Any] = {}
        self._last: dict[str, tuple[int, int]] = {}  # by key: the last step, and how many it has

    def take(self, line: Mapping[str, Any]) -> None:
        """Write one thing, or nothing where TensorBoard has no place for it."""
        match line["type"]:
            case "begin":
                self._begin(line)
            case "params":
                self._params |= line["params"]
                self._write(0, None, *_params(self._params))
            case "point":
                self._go_on(line["step"])
                value = _summary().Value(tag=line["metric"], simple_value=line["value"])
                self._write(line["step"], line["time"], value)
            case "logged":
                self._logged(line)
            case "event":
                told = _text(f"events/{line['kind']}", f"{line['title']}: {line['text']}")
                self._write(line.get("step") or 0, line["time"], told)
            case "end":
                self._write(0, None, _ended(line["status"]))

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _begin(self, line: Mapping[str, Any]) -> None:
        self._folder = self._top / line["run"]
        self._after = line.get("after")
        if not self._top.exists():
            self._top.mkdir(parents=True)
            # What is a copy for others is no code of a project, and not to be recorded as such.
            (self._top / ".gitignore").write_text("*\n", encoding="utf-8")
        self._folder.mkdir(parents=True, exist_ok=True)
        name = f"{int(time.time()):010}.{socket.gethostname()}.{os.getpid()}.{next(_files)}.cas"
        self._file = open(self._folder / f"events.out.tfevents.{name}", "wb", buffering=0)  # noqa: SIM115
        self._event(file_version="brain.Event:2")

    def _go_on(self, step: int) -> None:
        """Say, before the first point of a run that goes on, which of those before do not count."""
        if self._after is not None:
            session = _event().SessionLog(status=_event().SessionLog.START)
            self._event(step=min(step, self._after + 1), session_log=session)
            self._after = None

    def _logged(self, line: Mapping[str, Any]) -> None:
        content, make = line.get("content"), MAKERS.get(line["kind"])
        if content is not None and make is not None:
            key = self._alone(line["key"], line["step"])
            with suppress(CorruptionError):  # a file that is none, logged as it was
                values = list(make(key, line["format"], content, line["options"]))
                self._write(line["step"], line["time"], *values)

    def _alone(self, key: str, step: int) -> str:
        """Return a tag that has nothing at this step yet: TensorBoard shows one thing of each."""
        before, number = self._last.get(key, (None, 0))
        number = number + 1 if before == step else 1
        self._last[key] = step, number
        return key if number == 1 else f"{key}/{number}"

    def _write(self, step: int, at: float | None, *values: Any) -> None:
        if values:
            told = {} if at is None else {"wall_time": at}
            self._event(step=step, summary=_summary()(value=values), **told)

    def _event(self, **fields: Any) -> None:
        if self._file is not None:
            event = _event().Event(**{"wall_time": time.time(), **fields})
            self._file.write(record(event.SerializeToString()))


def _event() -> Any:
    from tensorboard.compat.proto import event_pb2

    return event_pb2


def _summary() -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary

    return Summary


def _text(tag: str, text: str) -> Any:
    from tensorboard.compat.proto.summary_pb2 import SummaryMetadata
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.types_pb2 import DT_STRING

    plugin = SummaryMetadata.PluginData(plugin_name="text")
    return _summary().Value(
        tag=tag,
        metadata=SummaryMetadata(plugin_data=plugin),
        tensor=TensorProto(dtype=DT_STRING, string_val=[text.encode()]),
    )


def _texts(key: str, format: str, content: bytes, options: Mapping[str, Any]) -> Iterator[Any]:
    text = content.decode("utf-8", "replace")
    # It shows Markdown; what is none is to be seen as it is.
    plain = "\n".join(f"    {line}" for line in text.splitlines())
    yield _text(key, text if format == "md" else plain)


def _images(key: str, format: str, content: bytes, options: Mapping[str, Any]) -> Iterator[Any]:
    if format in PICTURES:
        width, height, channels = size(content)
        image = _summary().Image(
            width=width, height=height, colorspace=channels, encoded_image_string=content
        )
        yield _summary().Value(tag=key, image=image)
    if caption := options.get("caption"):
        yield _text(f"{key}/caption", str(caption))


def _sounds(key: str, format: str, content: bytes, options: Mapping[str, Any]) -> Iterator[Any]:
    if format != "wav":
        return
    _, channels, rate, bits, samples = wav(content)
    told = _summary().Audio(
        sample_rate=rate,
        num_channels=channels,
        length_frames=len(samples) // max(channels * bits // 8, 1),
        encoded_audio_string=content,
        content_type="audio/wav",
    )
    yield _summary().Value(tag=key, audio=told)


def _histograms(key: str, format: str, content: bytes, options: Mapping[str, Any]) -> Iterator[Any]:
    """Yield a histogram; sums are those of the middles of its bins."""
    from tensorboard.compat.proto.histogram_pb2 import HistogramProto

    told = histogram.decode(format, content, {})
    counts, edges = told.counts.astype(float), told.edges
    middles = (edges[1:] / 2) + (edges[:-1] / 2)
    yield _summary().Value(
        tag=key,
        histo=HistogramProto(
            min=edges[0],
            max=edges[-1],
            num=counts.sum(),
            sum=float(middles @ counts),
            sum_squares=float(middles**2 @ counts),
            # Its buckets begin below everything: so the first one, up to the first edge, is empty.
            bucket_limit=edges.tolist(),
            bucket=[0.0, *counts.tolist()],
        ),
    )


Maker = Callable[[str, str, bytes, Mapping[str, Any]], Iterator[Any]]
MAKERS: Final[Mapping[str, Maker]] = {
    "text": _texts, "image": _images, "figure": _images, "audio": _sounds, "histogram": _histograms
}  # fmt: skip


def _params(params: Mapping[str, Any]) -> Iterator[Any]:
    """Yield params for the tab of hyperparameters, and as a table to read."""
    from tensorboard.plugins.hparams import metadata, plugin_data_pb2

    flat = dict(_flat(params, ""))
    start = plugin_data_pb2.SessionStartInfo(start_time_secs=time.time())
    for name, value in flat.items():
        if isinstance(value, bool):
            start.hparams[name].bool_value = value
        elif isinstance(value, int | float):
            start.hparams[name].number_value = value
        else:
            start.hparams[name].string_value = str(value)
    yield _hparams(
        metadata.SESSION_START_INFO_TAG,
        plugin_data_pb2.HParamsPluginData(session_start_info=start),
    )
    rows = (f"| {_cell(name)} | {_cell(value)} |" for name, value in flat.items())
    yield _text("params", "\n".join(["| name | value |", "|---|---|", *rows]))


def _ended(status: str) -> Any:
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

    well = status == "finished"
    end = plugin_data_pb2.SessionEndInfo(
        status=api_pb2.STATUS_SUCCESS if well else api_pb2.STATUS_FAILURE,
        end_time_secs=time.time(),
    )
    return _hparams(
        metadata.SESSION_END_INFO_TAG, plugin_data_pb2.HParamsPluginData(session_end_info=end)
    )


def _hparams(tag: str, data: Any) -> Any:
    from tensorboard.plugins.hparams import metadata

    told = metadata.create_summary_metadata(data)
    return _summary().Value(tag=tag, metadata=told, tensor=metadata.NULL_TENSOR)


def _flat(params: Mapping[str, Any], above: str) -> Iterator[tuple[str, Any]]:
    for name, value in params.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
