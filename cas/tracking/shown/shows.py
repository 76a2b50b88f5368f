"""What a run is shown beside numbers: texts, images, sounds, figures, tables, histograms, curves.

A call copies what it is given and returns; `outbox` encodes and stores it behind. Without `step` it
belongs to the step of the newest metric.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cas.errors import InvalidInputError
from cas.tracking.guard import guarded
from cas.tracking.live import Live
from cas.tracking.measures import Measures
from cas.tracking.media import audio as audios
from cas.tracking.media import embedding as embeddings
from cas.tracking.media import evaluation
from cas.tracking.media import figure as figures
from cas.tracking.media import histogram as histograms
from cas.tracking.media import image as images
from cas.tracking.media import table as tables
from cas.tracking.media.content import Content, Prepared, json_content, ready, whole
from cas.tracking.privacy.noting import noting
from cas.tracking.privacy.secrets import scrub_text, valid_text
from cas.tracking.shown.logged import Logged, check_key
from cas.tracking.shown.outbox import Outbox, Parcel
from cas.tracking.structure import structure

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
        given: Any = text
        told = valid_text(
            given.decode("utf-8", "replace") if isinstance(given, bytes) else str(given)
        )
        prepared = Prepared(len(told), lambda: Content(format, scrub_text(told)[0].encode()))
        self._show("text", key, lambda: prepared, step, epoch)

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
        told = given.boxes if boxes is None else boxes
        shown = images.Image(given.data, caption or given.caption, told, axes or given.axes)
        self._show("image", key, lambda: images.prepare(shown), step, epoch)

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
        self._show("audio", key, lambda: audios.prepare(given), step, epoch)

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
        self._show("figure", key, lambda: figures.prepare(figure, format, dpi), step, epoch)

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
        self._show("histogram", key, lambda: histograms.prepare(values, bins), step, epoch)

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
        self._show("table", key, lambda: tables.prepare(table, columns), step, epoch)

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

        def prepare() -> Prepared:
            if matrix is not None:
                return ready(evaluation.given_matrix(matrix, labels))
            return ready(evaluation.confusion_matrix(truth, predicted, labels))

        self._show("confusion_matrix", key, prepare, step, epoch)

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

        def prepare() -> Prepared:
            return ready(evaluation.pr_curve(truth, scores, labels))

        self._show("pr_curve", key, prepare, step, epoch)

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

        def prepare() -> Prepared:
            return ready(evaluation.roc_curve(truth, scores, labels))

        self._show("roc_curve", key, prepare, step, epoch)

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

        def prepare() -> Prepared:
            return ready(evaluation.learning_curves(sizes, train, validation))

        self._show("learning_curves", key, prepare, step, epoch)

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

        def prepare() -> Prepared:
            return embeddings.prepare(vectors, labels, metadata)

        self._show("embedding", key, prepare, step, epoch)

    @guarded
    def log_graph(self, model: object, key: str = "model", step: int | None = None) -> None:
        """Log a model's structure: its modules, their parameters, shapes and counts."""
        self._show("graph", key, lambda: ready(json_content(structure(model))), step, None)

    def _show(
        self,
        kind: str,
        key: str,
        prepare: Callable[[], Prepared],
        step: int | None,
        epoch: float | None,
    ) -> None:
        """Copy something, and put it on its way to the store; errors name the key."""
        at = max(self._live.state.metrics.last_step, 0) if step is None else whole(step, "a step")
        if not -MAX_STEP - 1 <= at <= MAX_STEP:
            raise InvalidInputError(f"a step is a whole number of 64 bits, not {at!r}")
        row = Logged(kind, check_key(key), at, self._live.clock() / 1e6, "", 0)
        try:
            with noting() as taken:
                prepared = prepare() if epoch is None else _at_epoch(prepare(), epoch)
        except InvalidInputError as error:
            raise InvalidInputError(f"{key}: {error}") from error
        if self._outbox is None:
            self._outbox = outbox = Outbox(self._live, self._failed)
            self._live.beside(outbox)
            self._live.before_checkpoints(outbox.flush)
        self._outbox.put(Parcel(f"log_{kind}", row, prepared, taken))


def _at_epoch(prepared: Prepared, epoch: object) -> Prepared:
    try:
        told = float(epoch)  # type: ignore[arg-type]  # it raises TypeError for what is none
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"an epoch is a number, not {epoch!r}") from error

    def encode() -> Content:
        content = prepared.encode()
        return Content(content.format, content.value, {**content.options, "epoch": told})

    return Prepared(prepared.nbytes, encode)
