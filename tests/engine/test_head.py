"""The head: orientation, balance, centring, and agreement with scikit-learn's own model."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from app.engine.head import Head, find_line, fit_head, probabilities


def unit_rows(n: int, d: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


NONE = np.empty((0, 6), np.float32)


def test_positives_score_above_the_boundary_and_negatives_below():
    positives = np.array([[1, 0, 0, 0, 0, 0]], np.float32)
    negatives = np.array([[0, 1, 0, 0, 0, 0], [0, 0, 1, 0, 0, 0]], np.float32)

    head = fit_head(positives, negatives, pseudo_negatives=NONE, centre=np.zeros(6))

    assert positives @ head.weights + head.bias > 0
    assert (negatives @ head.weights + head.bias < 0).all()
    assert head.weights.dtype == np.float32


def test_pseudo_negatives_train_as_negatives():
    positives, negatives, pseudo = unit_rows(4, 6, 1), unit_rows(3, 6, 2), unit_rows(5, 6, 3)
    centre = unit_rows(1, 6, 4)[0] / 3

    apart = fit_head(positives, negatives, pseudo_negatives=pseudo, centre=centre)
    together = fit_head(
        positives, np.concatenate([negatives, pseudo]), pseudo_negatives=NONE, centre=centre
    )

    np.testing.assert_array_equal(apart.weights, together.weights)
    assert apart.bias == together.bias


def test_scores_are_those_of_a_balanced_model_on_centred_vectors():
    positives, negatives = unit_rows(3, 6, 1) + 0.2, unit_rows(40, 6, 2)
    centre = np.full(6, 0.3, np.float32)
    vectors = np.concatenate([positives, negatives])
    labels = np.arange(43) < 3
    model = LogisticRegression(C=10.0, class_weight="balanced", tol=1e-8, max_iter=9999)
    expected = model.fit(vectors - centre, labels).decision_function(vectors - centre)

    head = fit_head(positives, negatives, pseudo_negatives=NONE, centre=centre)

    np.testing.assert_allclose(vectors @ head.weights + head.bias, expected, atol=0.01)
    unbalanced = LogisticRegression(C=10.0).fit(vectors - centre, labels)
    assert np.abs(unbalanced.decision_function(vectors - centre) - expected).max() > 1


def test_order_of_training_rows_does_not_matter():
    positives, negatives = unit_rows(9, 6, 1), unit_rows(30, 6, 2)
    one = fit_head(positives, negatives, pseudo_negatives=NONE, centre=np.zeros(6))
    other = fit_head(positives[::-1], negatives[::-1], pseudo_negatives=NONE, centre=np.zeros(6))
    np.testing.assert_allclose(one.weights, other.weights, rtol=1e-4, atol=1e-5)


def test_probabilities_are_a_sigmoid_without_overflow():
    scores = np.array([-1e9, -2, 0, 2, 1e9], np.float32)
    expected = [0, 1 / (1 + np.exp(2)), 0.5, 1 / (1 + np.exp(-2)), 1]
    np.testing.assert_allclose(probabilities(scores), expected, rtol=1e-6)
    assert probabilities(scores).dtype == np.float32


@pytest.mark.parametrize("missing", ["positives", "negatives"])
def test_a_head_of_one_class_is_refused(missing):
    some, none = np.eye(2, 3, dtype=np.float32), np.zeros((0, 3), np.float32)
    given = {"positives": some, "negatives": some} | {missing: none}
    with pytest.raises(ValueError, match="a head needs a positive"):
        fit_head(**given, pseudo_negatives=none, centre=np.zeros(3, np.float32))


def drawn_answers(seed: int) -> dict[str, np.ndarray]:
    """Positives near one direction, negatives some way off it and some at random."""
    rng = np.random.default_rng(seed)
    target = unit_rows(1, 24, seed)
    noise = lambda n: rng.standard_normal((n, 24)).astype(np.float32)  # noqa: E731
    near = lambda n, pull: pull * target + 0.22 * noise(n)  # noqa: E731
    rows = {
        "positives": near(14, 1.0),
        "negatives": np.concatenate([near(40, 0.7), noise(30)]),
        "pseudo_negatives": noise(60),
    }
    rows = {name: some / np.linalg.norm(some, axis=1, keepdims=True) for name, some in rows.items()}
    return rows | {"centre": np.full(24, 0.01, np.float32)}


def best_line_by_refits(taught: dict[str, np.ndarray], C: float) -> float:
    """The line of highest F1, each answer scored by a head fitted anew without it."""
    scores: dict[str, list[float]] = {"positives": [], "negatives": []}
    for kind, found in scores.items():
        for place in range(len(taught[kind])):
            others = taught | {kind: np.delete(taught[kind], place, axis=0)}
            head = fit_head(**others, C=C)
            found.append(float(taught[kind][place] @ head.weights + head.bias))
    best, line = -1.0, 0.0
    for at in np.linspace(-3, 3, 121):
        right = sum(1 / (1 + np.exp(-(one - at) / 0.3)) for one in scores["positives"])
        wrong = sum(1 / (1 + np.exp(-(one - at) / 0.3)) for one in scores["negatives"])
        f1 = 2 * right / (right + wrong + len(scores["positives"])) - 0.05 * at**2
        if f1 > best:
            best, line = f1, at
    return line


@pytest.mark.parametrize("seed", [2, 3, 4, 5, 7, 10])
def test_the_line_is_that_of_heads_fitted_without_the_answer(seed):
    taught = drawn_answers(seed)
    head = fit_head(**taught, C=30.0)
    line = find_line(head, **taught, C=30.0)
    assert abs(line - best_line_by_refits(taught, 30.0)) <= 0.1


@pytest.mark.parametrize("positives, negatives", [(1, 70), (14, 0)])
def test_too_few_answers_leave_the_line_at_0(positives, negatives):
    taught = drawn_answers(1)
    taught["positives"] = taught["positives"][:positives]
    taught["negatives"] = taught["negatives"][:negatives]
    assert find_line(fit_head(**taught, C=30.0), **taught, C=30.0) == 0.0


def test_answers_that_are_all_alike_leave_the_line_at_0():
    same = np.full((5, 24), 24**-0.5, np.float32)
    taught = {"positives": same[:2], "negatives": same[2:3], "pseudo_negatives": same[3:]}
    taught["centre"] = np.zeros(24, np.float32)
    assert find_line(fit_head(**taught, C=30.0), **taught, C=30.0) == 0.0
    unknown = Head(np.full(24, np.nan, np.float32), 0.0)
    assert find_line(unknown, **taught, C=30.0) == 0.0


def test_a_head_at_its_line_reads_yes_above_0():
    head = Head(np.array([1.0, 0.0], np.float32), 0.5, line=0.75).at_line()
    assert (head.bias, head.line) == (-0.25, 0.0)
