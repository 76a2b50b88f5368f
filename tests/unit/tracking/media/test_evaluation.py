"""Curves and matrices are those that scikit-learn computes."""

import math
from itertools import chain
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from cas.errors import InvalidInputError
from cas.objects.document import read_document
from cas.tracking.media import evaluation
from cas.tracking.media.content import Content

CASES = st.lists(
    st.tuples(st.booleans(), st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0])),
    min_size=2,
    max_size=40,
).filter(lambda rows: len({truth for truth, _ in rows}) == 2)


def told(content: Content) -> Any:
    assert content.format == "json"
    return read_document(content.value)


@given(rows=CASES)
def test_a_roc_curve(rows: list[tuple[bool, float]]) -> None:
    truth, scores = map(list, zip(*rows, strict=True))
    found = told(evaluation.roc_curve(truth, scores))
    fpr, tpr, thresholds = metrics.roc_curve(truth, scores, drop_intermediate=False)
    assert found["fpr"] == pytest.approx(fpr.tolist())
    assert found["tpr"] == pytest.approx(tpr.tolist())
    assert found["thresholds"] == [None, *thresholds.tolist()[1:]]
    assert found["auc"] == pytest.approx(metrics.roc_auc_score(truth, scores))


@given(rows=CASES)
def test_a_precision_and_recall_curve(rows: list[tuple[bool, float]]) -> None:
    truth, scores = map(list, zip(*rows, strict=True))
    found = told(evaluation.pr_curve(truth, scores))
    precision, recall, thresholds = metrics.precision_recall_curve(truth, scores)
    assert found["precision"][::-1] == pytest.approx(precision.tolist()[:-1])
    assert found["recall"][::-1] == pytest.approx(recall.tolist()[:-1])
    assert found["thresholds"][::-1] == thresholds.tolist()
    area = metrics.average_precision_score(truth, scores)
    assert found["average_precision"] == pytest.approx(area)


@given(
    rows=st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), min_size=1, max_size=30
    ).filter(lambda rows: len({*chain(*rows)}) > 1)  # scikit-learn warns of a single one
)
def test_a_confusion_matrix(rows: list[tuple[str, str]]) -> None:
    truth, predicted = map(list, zip(*rows, strict=True))
    found = told(evaluation.confusion_matrix(truth, predicted))
    labels = sorted({*truth, *predicted})
    assert found["labels"] == labels
    expected = metrics.confusion_matrix(truth, predicted, labels=labels)
    assert found["matrix"] == expected.tolist()
    chosen = told(evaluation.confusion_matrix(truth, predicted, ["c", "a"]))
    assert chosen["labels"] == ["c", "a"]
    counts = [
        [sum(row == (true, said) for row in rows) for said in ("c", "a")] for true in ("c", "a")
    ]
    assert chosen["matrix"] == counts


def test_scores_of_classes_make_a_curve_each() -> None:
    truth = ["x", "y", "y"]
    found = told(evaluation.roc_curve(truth, [[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], ["x", "y"]))
    assert found.keys() == {"x", "y"}
    assert found["y"] == told(evaluation.roc_curve([False, True, True], [0.1, 0.8, 0.4]))


def test_the_positive_class_can_be_named() -> None:
    truth, scores = ["ham", "spam"], [0.9, 0.1]
    assert told(evaluation.roc_curve(truth, scores))["auc"] == 0
    assert told(evaluation.roc_curve(truth, scores, ["spam", "ham"]))["auc"] == 1


def test_a_long_curve_is_thinned_and_keeps_its_ends_and_area() -> None:
    rng = np.random.default_rng(1)
    truth, scores = rng.random(20_000) > 0.5, rng.random(20_000)
    found = told(evaluation.roc_curve(truth, scores))
    assert len(found["fpr"]) == len(found["tpr"]) == len(found["thresholds"]) == evaluation.POINTS
    assert (found["fpr"][0], found["fpr"][-1], found["tpr"][-1]) == (0, 1, 1)
    assert found["auc"] == pytest.approx(metrics.roc_auc_score(truth, scores))


def test_one_class_alone_and_nothing_at_all() -> None:
    assert told(evaluation.roc_curve([1, 1], [0.1, 0.2]))["tpr"] == [0, 0.5, 1]
    assert told(evaluation.pr_curve([], []))["precision"] == []


def test_learning_curves() -> None:
    found = told(evaluation.learning_curves([10, 20], [[0.5, 0.7], [0.8, 0.8]], [0.4, 0.6]))
    assert found["sizes"] == [10, 20]
    assert found["train"]["mean"] == pytest.approx([0.6, 0.8])
    assert found["train"]["std"] == pytest.approx([0.1, 0])
    assert found["validation"]["scores"] == [[0.4], [0.6]]


@pytest.mark.parametrize(
    "call",
    [
        lambda: evaluation.confusion_matrix([1, 2], [1]),
        lambda: evaluation.confusion_matrix([[1]], [[1]]),
        lambda: evaluation.given_matrix([[1, 2]]),
        lambda: evaluation.given_matrix([[1]], ["a", "b"]),
        lambda: evaluation.roc_curve([1, 0], [0.1]),
        lambda: evaluation.roc_curve([1, 0], [0.1, math.nan]),
        lambda: evaluation.roc_curve([1, 0], [[0.1], [0.2]], ["a", "b"]),
        lambda: evaluation.learning_curves([1, 2], [1], [1, 2]),
    ],
)
def test_what_does_not_fit_is_refused(call: Any) -> None:
    with pytest.raises(InvalidInputError):
        call()
