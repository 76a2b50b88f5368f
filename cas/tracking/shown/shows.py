"""What a run is shown beside numbers: texts, images, sounds, figures, tables, histograms, curves.

A call copies what it is given and returns; `outbox` encodes and stores it behind. Without `step` it
belongs to the step of the newest metric.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from cas.errors import InvalidInputError
from cas.tracking.captured.capture import as_data
from cas.tracking.guard import guarded
from cas.tracking.live import Live
from cas.tracking.measures import Measures
from cas.tracking.media import audio as audios
from cas.tracking.media import evaluation
from cas.tracking.media import figure as figures
from cas.tracking.media import histogram as histograms
from cas.tracking.media import image as images
from cas.tracking.media import table as tables
from cas.tracking.media.content import Content, Prepared, as_array, clean, ready
from cas.tracking.privacy.secrets import scrub_text, valid_text
from cas.tracking.shown.logged import Logged, check_key
from cas.tracking.shown.outbox import Outbox, Parcel

TEXTS = ("txt", "md", "html")
MAX_STEP = 2**63 - 1


class Shows(Measures):
    """The calls of a run that take other things than numbers."""

    def __init__(self, live: Live) -> None:
        super().__init__(live)
        self._outbox: Outbox | None = None

    @guarded
    def log_text(
        self,
        key: str,
        text: str,
        step: int | None = None,
        *,
        epoch: float | None = None,
        format: str = "txt",
    ) -> None:
        """Log a text: plain, or as Markdown or HTML with `format` md or html."""
        if format not in TEXTS:
            raise InvalidInputError(f"a text is one of {', '.join(TEXTS)}, not {format!r}")
        told = valid_text(str(text))
        prepared = Prepared(len(told), lambda: Content(format, scrub_text(told)[0].encode()))
        self._show("text", key, prepared, step, epoch)

    @guarded
    def log_image(
        self,
        key: str,
        image: object,
        step: int | None = None,
        *,
        epoch: float | None = None,
        caption: str = "",
        boxes: Sequence[Mapping[str, Any]] | None = None,
        axes: str | None = None,
    ) -> None:
        """Log an image: an array or tensor (HW, HWC or CHW), one of PIL, or an image file's path.

        Arrays hold bytes, or numbers from 0 to 1; others are stretched to that. They are stored as
        PNG, files as they are.
        """
        given = image if isinstance(image, images.Image) else images.Image(image)
        whole = images.Image(
            given.data,
            caption or given.caption,
            given.boxes if boxes is None else [as_data(box) for box in boxes],
            axes or given.axes,
        )
        self._show("image", key, images.prepare(whole), step, epoch)

    @guarded
    def log_audio(
        self,
        key: str,
        audio: object,
        rate: int = 0,
        step: int | None = None,
        *,
        epoch: float | None = None,
        caption: str = "",
    ) -> None:
        """Log sound: samples (n, or n x channels) at `rate` Hz, as WAV; or an audio file's path."""
        given = audio if isinstance(audio, audios.Audio) else audios.Audio(audio, rate, caption)
        self._show("audio", key, audios.prepare(given), step, epoch)

    @guarded
    def log_figure(
        self,
        key: str,
        figure: object,
        step: int | None = None,
        *,
        epoch: float | None = None,
        format: str = "png",
        dpi: int | None = None,
    ) -> None:
        """Log a figure of matplotlib, as PNG or SVG, or one of plotly, as its own JSON."""
        self._show("figure", key, figures.prepare(figure, format, dpi), step, epoch)

    @guarded
    def log_histogram(
        self,
        key: str,
        values: object,
        step: int | None = None,
        *,
        epoch: float | None = None,
        bins: int = histograms.BINS,
    ) -> None:
        """Log the distribution of an array or tensor, or a `cas.Histogram` that is made already."""
        self._show("histogram", key, histograms.prepare(values, bins), step, epoch)

    @guarded
    def log_table(
        self,
        key: str,
        table: object,
        step: int | None = None,
        *,
        columns: Sequence[str] | None = None,
        epoch: float | None = None,
    ) -> None:
        """Log a table: a frame of pandas, polars or pyarrow, columns by name, dicts, or rows.

        Rows that are lists need the names of their `columns`.
        """
        self._show("table", key, tables.prepare(table, columns), step, epoch)

    @guarded
    def log_confusion_matrix(
        self,
        key: str,
        truth: object = None,
        predicted: object = None,
        step: int | None = None,
        *,
        matrix: object = None,
        labels: Sequence[object] | None = None,
        epoch: float | None = None,
    ) -> None:
        """Log how often each class was taken for each, counted here or given as `matrix`."""
        if matrix is not None:
            content = evaluation.given_matrix(matrix, labels)
        else:
            content = evaluation.confusion_matrix(truth, predicted, labels)
        self._show("confusion_matrix", key, ready(content), step, epoch)

    @guarded
    def log_pr_curve(
        self,
        key: str,
        truth: object,
        scores: object,
        step: int | None = None,
        *,
        labels: Sequence[object] | None = None,
        epoch: float | None = None,
    ) -> None:
        """Log precision and recall at every threshold; scores of n x classes make one curve each.

        Of one column of scores the positive class is the last of `labels`, or the greatest.
        """
        content = evaluation.pr_curve(truth, scores, labels)
        self._show("pr_curve", key, ready(content), step, epoch)

    @guarded
    def log_roc_curve(
        self,
        key: str,
        truth: object,
        scores: object,
        step: int | None = None,
        *,
        labels: Sequence[object] | None = None,
        epoch: float | None = None,
    ) -> None:
        """Log true against false positives at every threshold, and the AUC; see `log_pr_curve`."""
        content = evaluation.roc_curve(truth, scores, labels)
        self._show("roc_curve", key, ready(content), step, epoch)

    @guarded
    def log_learning_curves(
        self,
        key: str,
        sizes: object,
        train: object,
        validation: object,
        step: int | None = None,
        *,
        epoch: float | None = None,
    ) -> None:
        """Log scores by size of the training set, as scikit-learn's `learning_curve` returns."""
        content = evaluation.learning_curves(sizes, train, validation)
        self._show("learning_curves", key, ready(content), step, epoch)

    @guarded
    def log_embedding(
        self,
        key: str,
        vectors: object,
        step: int | None = None,
        *,
        labels: Sequence[object] | None = None,
        metadata: Mapping[str, Sequence[object]] | None = None,
        epoch: float | None = None,
    ) -> None:
        """Log vectors (n x d), bit for bit, with a label for each or columns of metadata."""
        array = as_array(vectors, "an embedding")
        if array.ndim != 2:
            raise InvalidInputError(f"an embedding is n x d vectors, not of shape {array.shape}")
        told = {name: clean(as_data(column)) for name, column in (metadata or {}).items()}
        names = None if labels is None else clean(as_data(list(labels)))
        for name, column in {"labels": names, **told}.items():
            if column is not None and len(column) != len(array):
                raise InvalidInputError(f"{len(array)} vectors, but {len(column)} of {name}")
        value = {"vectors": array, "labels": names, "metadata": told}
        prepared = Prepared(array.nbytes, lambda: Content("state", value))
        self._show("embedding", key, prepared, step, epoch)

    @guarded
    def log_graph(self, model: object, key: str = "model", step: int | None = None) -> None:
        """Log a model's structure: its modules, their parameters, shapes and counts."""
        from cas.tracking.media.content import json_content
        from cas.tracking.structure import structure

        self._show("graph", key, ready(json_content(structure(model))), step, None)

    def _show(
        self, kind: str, key: str, prepared: Prepared, step: int | None, epoch: float | None
    ) -> None:
        """Put something on its way to the store."""
        at = max(self._live.state.metrics.last_step, 0) if step is None else step
        if type(at) is not int or not -MAX_STEP - 1 <= at <= MAX_STEP:
            raise InvalidInputError(f"a step is a whole number of 64 bits, not {at!r}")
        row = Logged(kind, check_key(key), at, self._live.repo.clock() / 1e6, "", 0)
        if epoch is not None:
            prepared = _at_epoch(prepared, epoch)
        if self._outbox is None:
            self._outbox = outbox = Outbox(self._live, self._failed)
            self._live.beside(outbox)
        self._outbox.put(Parcel(f"log_{kind}", row, prepared))


def _at_epoch(prepared: Prepared, epoch: float) -> Prepared:
    if not isinstance(epoch, int | float):
        raise InvalidInputError(f"an epoch is a number, not {epoch!r}")

    def encode() -> Content:
        content = prepared.encode()
        return Content(content.format, content.value, {**content.options, "epoch": epoch})

    return Prepared(prepared.nbytes, encode)
