"""What a classifier's answers come to: confusion matrices, precision, recall and ROC curves."""

from collections.abc import Sequence
from typing import Any, Final

from cas.errors import InvalidInputError
from cas.tracking.media.content import Content, as_array, json_content

POINTS: Final = 1000  # of a curve; a longer one is thinned evenly


def confusion_matrix(
    truth: object, predicted: object, labels: Sequence[object] | None = None
) -> Content:
    """Return how often each class was taken for each; rows are what is true.

    Classes are `labels`, or all that occur, in order.
    """
    import numpy as np

    true, said = _answers(truth), _answers(predicted)
    if true.shape != said.shape:
        raise InvalidInputError(f"{len(true)} true classes, but {len(said)} predicted ones")
    if len(true) and _is_text(true) != _is_text(said):
        raise InvalidInputError("true and predicted classes are numbers, or both are texts")
    known = np.asarray(labels) if labels is not None else np.unique(np.concatenate([true, said]))
    order = np.argsort(known)
    places = [np.searchsorted(known, one, sorter=order) for one in (true, said)]
    rows, columns = (order[np.minimum(place, len(known) - 1)] for place in places)
    inside = (known[rows] == true) & (known[columns] == said)
    counts = np.bincount(rows[inside] * len(known) + columns[inside], minlength=len(known) ** 2)
    matrix = counts.reshape(len(known), len(known))
    return json_content({"labels": known.tolist(), "matrix": matrix.tolist()})


def given_matrix(matrix: object, labels: Sequence[object] | None = None) -> Content:
    """Return a matrix that was counted already."""
    array = as_array(matrix, "a confusion matrix")
    if array.ndim != 2 or array.shape[0] != array.shape[1]:
        raise InvalidInputError(f"a confusion matrix is square, not of shape {array.shape}")
    names = list(labels) if labels is not None else list(range(len(array)))
    if len(names) != len(array):
        raise InvalidInputError(f"{len(names)} labels for {len(array)} classes")
    return json_content({"labels": names, "matrix": array.tolist()})


def pr_curve(truth: object, scores: object, labels: Sequence[object] | None = None) -> Content:
    """Return precision and recall at every threshold, from the highest on, and their area."""
    return _curves(truth, scores, labels, _pr)


def roc_curve(truth: object, scores: object, labels: Sequence[object] | None = None) -> Content:
    """Return false and true positive rates at every threshold, from the highest on, and the AUC."""
    return _curves(truth, scores, labels, _roc)


def learning_curves(sizes: object, train: object, validation: object) -> Content:
    """Return scores by size of the training set; two axes are sizes and folds."""
    told = {}
    counts = as_array(sizes, "the sizes")
    for name, scores in (("train", train), ("validation", validation)):
        array = as_array(scores, f"the {name} scores")
        array = array.reshape(-1, 1) if array.ndim == 1 else array
        if array.ndim != 2 or len(array) != len(counts):
            raise InvalidInputError(f"{len(counts)} sizes, but {name} scores of {array.shape}")
        told[name] = {
            "mean": _listed(array.mean(axis=1)),
            "std": _listed(array.std(axis=1)),
            "scores": [_listed(row) for row in array],
        }
    return json_content({"sizes": counts.tolist(), **told})


def _curves(truth: object, scores: object, labels: Sequence[object] | None, curve: Any) -> Content:
    true, score = _answers(truth), as_array(scores, "the scores")
    if len(true) != len(score) or score.ndim > 2:
        raise InvalidInputError(f"{len(true)} true classes, but scores of shape {score.shape}")
    if score.ndim == 1:
        positive = labels[-1] if labels is not None else max(true.tolist(), default=1)
        return json_content(curve(true == positive, score))
    names = list(labels) if labels is not None else list(range(score.shape[1]))
    if len(names) != score.shape[1]:
        raise InvalidInputError(f"{len(names)} labels, but scores of {score.shape[1]} classes")
    return json_content(
        {str(name): curve(true == name, score[:, at]) for at, name in enumerate(names)}
    )


def _counted(true: Any, score: Any) -> tuple[Any, Any, Any]:
    """Return thresholds, highest first, and how many are right and wrong at and above each."""
    import numpy as np

    if not np.isfinite(score).all():
        raise InvalidInputError("a curve is drawn of finite scores")
    order = np.argsort(-score, kind="stable")
    true, score = true[order], score[order]
    ends = np.append(np.nonzero(np.diff(score))[0], len(score) - 1).astype(np.int64)
    ends = ends[: len(score)]
    right = np.cumsum(true)[ends]
    return score[ends], right, ends + 1 - right


def _pr(true: Any, score: Any) -> dict[str, Any]:
    import numpy as np

    thresholds, right, wrong = _counted(true, score)
    total = right[-1] if len(right) else 0
    precision = right / np.maximum(right + wrong, 1)
    recall = right / total if total else np.ones(len(right))
    area = float(np.sum(np.diff(np.append(0, recall)) * precision))
    kept = _thinned(len(thresholds))
    told = {"precision": precision, "recall": recall, "thresholds": thresholds}
    return {name: _listed(one[kept]) for name, one in told.items()} | {"average_precision": area}


def _roc(true: Any, score: Any) -> dict[str, Any]:
    import numpy as np

    thresholds, right, wrong = _counted(true, score)
    rates = [
        np.append(0, found / found[-1] if len(found) and found[-1] else np.zeros(len(found)))
        for found in (wrong, right)
    ]
    area = float(np.sum(np.diff(rates[0]) * (rates[1][1:] + rates[1][:-1]) / 2))
    kept = _thinned(len(thresholds) + 1)
    told = {"fpr": _listed(rates[0][kept]), "tpr": _listed(rates[1][kept])}
    # The first point takes nothing for true: it has no threshold.
    first = [None, *_listed(thresholds)]
    return told | {"thresholds": [first[at] for at in kept], "auc": area}


def _thinned(count: int) -> Any:
    import numpy as np

    return np.unique(np.linspace(0, count - 1, min(count, POINTS)).round().astype(np.int64))


def _answers(given: object) -> Any:
    import numpy as np

    value: Any = given
    if callable(getattr(value, "detach", None)):
        value = value.detach().cpu()
    array = np.asarray(value)
    if array.dtype.kind == "O" and all(isinstance(one, str) for one in array.flat):
        array = array.astype(str)  # a column of pandas
    if array.ndim != 1 or array.dtype.kind not in "biufUS":
        raise InvalidInputError("classes are one list of numbers or texts")
    return array


def _is_text(classes: Any) -> bool:
    return classes.dtype.kind in "US"


def _listed(array: Any) -> list[float]:
    return [float(number) for number in array]
