"""Measures, against scikit-learn or written down by hand."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score

from app.engine import metrics

labelled_scores = st.lists(
    st.tuples(st.booleans(), st.sampled_from([-2.0, -0.5, 0.0, 0.25, 1.0, 3.0])), min_size=1
).filter(lambda pairs: any(is_target for is_target, _ in pairs))


@settings(max_examples=100, deadline=None)
@given(labelled_scores)
def test_average_precision_and_f1_are_those_of_scikit_learn(pairs):
    is_target = np.array([is_target for is_target, _ in pairs])
    scores = np.array([score for _, score in pairs])
    assert metrics.average_precision(is_target, scores) == pytest.approx(
        average_precision_score(is_target, scores)
    )
    assert metrics.f1(is_target, scores) == pytest.approx(
        f1_score(is_target, scores > 0, zero_division=0)
    )


def test_nothing_to_find():
    none = np.zeros(3, bool)
    assert math.isnan(metrics.average_precision(none, np.arange(3.0)))
    assert metrics.f1(none, -np.ones(3)) == 0


def test_shares_of_answers():
    assert metrics.recall(3, 12) == 0.25
    assert metrics.round_precision(3, 10) == 0.3
    assert metrics.round_precision(0, 0) == 0
    assert metrics.positives_per_100_answers(7, 50) == 14
    assert metrics.positives_per_100_answers(0, 0) == 0


def test_area_is_the_mean_over_rounds():
    assert metrics.area(np.array([0.0, 0.5, 1.0, 1.0])) == 0.625


def test_when_recall_first_reached_a_level():
    recalls = np.array([0.1, 0.5, 0.7999999999, 0.95])
    answers = np.array([10, 20, 30, 40])
    assert metrics.rounds_until(recalls, 0.5) == 2
    assert metrics.answers_until(answers, recalls, 0.5) == 20
    assert metrics.answers_until(answers, recalls, 0.8) == 30
    assert metrics.answers_until(answers, recalls, 0.99) == math.inf
