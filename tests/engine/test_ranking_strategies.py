"""The strategies that rank by one number: exact rows on scores written down by hand."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from app.engine.answers import Answers, Opening
from app.engine.head import Head
from app.engine.metric import Metric
from app.engine.strategies import ranking
from app.engine.strategies.fitting import fit_on_roots, fit_steadied
from app.engine.strategies.round_state import Lesson, RoundState, smallest

SCORES = [0.5, -0.1, 0.2, -3.0, 2.0, -0.1, 0.0, 0.2, 9.9, -0.3]
#           0     1    2     3    4     5    6    7    8     9
ANSWERED = {8: 1, 3: -1}


@pytest.fixture(scope="module")
def make_state(make_index):
    angles = np.linspace(0, 3, len(SCORES))
    fan = make_index(np.stack([np.cos(angles), np.sin(angles)], axis=1))

    def make(size, scores=SCORES, answered=ANSWERED, examples=0, seed=0, vectors=None):
        index = fan
        if vectors is not None:
            # A number below 0 that says nothing: else a second head would have a say.
            index = make_index(np.column_stack([vectors, np.full(len(vectors), -1e-6)]))
        index = replace(index, _metric=as_it_is(index))
        rows = np.array(sorted(answered), np.int64)
        answers = Answers(rows, np.array([answered[row] for row in rows], np.int8))
        opening = Opening(index.vectors[4], index.vectors[:examples])
        return RoundState(
            index=index,
            answers=answers,
            opening=opening,
            lesson=lesson_of(index, answers, opening),
            unanswered=np.setdiff1d(np.arange(len(SCORES)), rows),
            head=Head(np.zeros(index.dimension, np.float32), 0.0),
            scores=np.array(scores, np.float32)[np.setdiff1d(np.arange(len(SCORES)), rows)],
            size=size,
            rng=np.random.default_rng(seed),
        )

    return make


def lesson_of(index, answers, opening, seed=0):
    """What `propose_round` makes of the answers to fit on."""
    return Lesson(
        index,
        np.concatenate([index.vectors[answers.positives], opening.examples]),
        index.vectors[answers.negatives],
        np.setdiff1d(np.arange(index.count), answers.rows),
        np.random.default_rng(seed),
    )


def as_it_is(index):
    """The metric in which vectors are compared as they are."""
    none = np.zeros((0, index.dimension), np.float32)
    return Metric(np.zeros(index.dimension, np.float32), none, np.zeros(0, np.float32), 1.0)


def test_pf_ma_takes_positives_nearest_the_line_then_negatives_nearest_it(make_state):
    choice = ranking.pf_ma(make_state(8))
    assert choice.rows.tolist() == [6, 2, 7, 0, 4, 1, 5, 9]
    assert set(choice.reasons) == {"close-to-line"}
    assert len(choice.reasons) == 8


def test_pf_ma_stops_within_the_positives(make_state):
    assert ranking.pf_ma(make_state(2)).rows.tolist() == [6, 2]


def test_pf_ma_without_predicted_positives_goes_up_to_the_line(make_state):
    state = make_state(3, scores=[-5, -1, -4, -9, -2, -3, -8, -6, -7, -1])
    assert ranking.pf_ma(state).rows.tolist() == [1, 9, 4]


def test_rarefind_asks_about_doubts_as_often_as_the_answer_was_yes(make_state):
    # Neither yes nor no resembles a thing: both answered images are alike, all cosines cancel out.
    alike = np.tile([1.0, 0.0], (10, 1))
    half = ranking.rarefind(make_state(4, vectors=alike))
    assert half.rows.tolist() == [6, 2, 4, 0]
    assert half.reasons == ("close-to-line", "close-to-line", "likely", "likely")
    third = ranking.rarefind(make_state(3, vectors=alike, answered={8: 1, 3: -1, 9: -1, 5: 0}))
    assert third.rows.tolist() == [6, 4, 0]
    example = ranking.rarefind(make_state(3, vectors=alike, answered={3: -1}, examples=2))
    assert example.rows.tolist() == [6, 2, 8]  # two of three are yes
    all_yes = ranking.rarefind(make_state(3, vectors=alike, answered={8: 1}))
    assert all_yes.rows.tolist() == [6, 2, 7]


def test_rarefind_prefers_what_resembles_a_yes_more_than_a_no(make_state):
    vectors = np.tile([0.6, 0.8], (10, 1))
    vectors[8], vectors[3] = [1.0, 0.0], [0.0, 1.0]  # the yes, and the no; most others are between
    vectors[9], vectors[4] = [0.8, 0.6], [0.0, 1.0]
    # Score + 8 (cosine to the yes - cosine to the no): row 9 has -0.3 + 8 (0.8 - 0.6) = 1.3,
    # row 4 has 2 + 8 (0 - 1) = -6, row 0 has 0.5 - 1.6 = -1.1; half of two is by doubt. It is more
    # crowded around each of them than around the yes, around the most alike ones most.
    assert ranking.rarefind(make_state(2, vectors=vectors)).rows.tolist() == [6, 9]


@pytest.mark.parametrize("kind", [1, -1])
def test_rarefind_looks_at_three_answers_of_each_kind(make_state, monkeypatch, kind):
    monkeypatch.setattr(ranking, "_crowding", lambda _, own: np.zeros(len(own)))
    # Four answers are axes, two of the other kind another. By the largest cosine to the four, or
    # the mean of two, row 4 is nearest, by the mean of all row 0, by that of three row 9.
    vectors = np.zeros((10, 6))
    vectors[[5, 6, 7, 8]], vectors[[2, 3]] = np.eye(6)[:4], np.eye(6)[4]
    vectors[0, :4], vectors[4, :4], vectors[9, :4] = 0.5, [0.7, 0.6, 0.1, 0], [0.55] * 3 + [0]
    vectors[1, 5] = 1  # by doubt: the only one not below 0
    vectors[[4, 9], 5] = [0.14**0.5, 0.0925**0.5]
    answered = dict.fromkeys([5, 6, 7, 8], kind) | dict.fromkeys([2, 3], -kind)
    scores = [-1, 0, 0, 0, -1, 0, 0, 0, 0, -1]
    state = make_state(4, scores, answered, vectors=vectors)
    monkeypatch.setattr(ranking, "_common_similarity", lambda _: 2.0)
    shown = ranking.rarefind(state).rows.tolist()
    by_doubt = round(4 * {1: 4, -1: 2}[kind] / 6)
    by_likeness = [row for row in [9, 0, 4][::kind] if row not in shown[:by_doubt]]
    assert shown[0] == 1
    assert shown[by_doubt:] == by_likeness


def test_rarefind_passes_over_what_is_more_crowded_than_the_finds_are(make_state, monkeypatch):
    monkeypatch.setattr(ranking, "COMPANY", 1)
    vectors = np.tile([0.0, 0.0, -1.0], (10, 1))
    vectors[8], vectors[3] = [1.0, 0.0, 0.0], [0.0, 0.0, -1.0]  # the yes, and the no
    vectors[0], vectors[4], vectors[5] = [0.8, 0.6, 0], [0.8, -0.6, 0], [0.8, -0.6, 0]
    scores = [1.0, -99, 0.0, -99, 2.0, 2.0, -99, -99, 0, -99]
    # By doubt row 2. Rows 0, 4 and 5 have cosine 0.8 to the yes and 0 to the no; 4 and 5 have each
    # other at 1, the yes has none closer than 0.8: 1 + 6.4 against 2 + 6.4 - 8 (1 - 0.8).
    assert ranking.rarefind(make_state(2, scores, vectors=vectors)).rows.tolist() == [2, 0]
    vectors[7] = vectors[8]  # the yes has as close a neighbour itself: 1 + 6.4 against 2 + 6.4
    assert ranking.rarefind(make_state(2, scores, vectors=vectors)).rows.tolist() == [2, 4]


def test_of_many_positives_some_tell_how_similar_they_are(monkeypatch):
    """Every second of six: each against all others, so that none looks lonelier than it is."""
    monkeypatch.setattr(ranking, "MOST_TYPICAL", 3)
    angles = np.radians([0, 1, 20, 23, 60, 65])
    positives = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    assert ranking._common_similarity(positives) == pytest.approx(np.cos(np.radians(3)))
    assert ranking._common_similarity(positives[:1]) > 1


def test_rarefind_shows_no_look_twice_while_there_are_others(make_state):
    # The positives have cosine 0.6. Rows 0 and 2 are one look; 4, and 7 by doubt, are others.
    vectors = np.tile([1.0, 0.0, 0.0], (10, 1))
    vectors[8], vectors[9] = [0.0, 1.0, 0.0], [0.0, 0.6, 0.8]
    vectors[[1, 3, 4, 5, 6]] = [0.0, 0.0, -1.0]
    vectors[7] = [-1.0, 0.0, 0.0]
    answered = {8: 1, 9: 1} | dict.fromkeys([1, 3, 5, 6], -1)
    scores = [3.0, 0, 2.9, 0, -20, 0, 0, 2.8, 0, 0]
    shown = [
        ranking.rarefind(make_state(size, scores, answered, vectors=vectors)).rows.tolist()
        for size in (3, 4)
    ]
    assert shown == [[7, 0, 4], [7, 0, 4, 2]]  # at last nothing else is left
    vectors[7] = vectors[0]
    state = make_state(3, scores, answered, vectors=vectors)
    assert ranking.rarefind(state).rows.tolist() == [7, 4, 0]  # the one by doubt is a look as well


@pytest.mark.parametrize("is_signed", [True, False])
@pytest.mark.parametrize("seed", range(8))
def test_rarefind_is_the_rule_as_written(make_index, monkeypatch, seed, is_signed):
    """Against the rule in plain loops, over more images than are compared with single answers."""
    monkeypatch.setattr(ranking, "SCORED_TWICE", 400)
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((500, 4))
    index = make_index(vectors if is_signed else np.abs(vectors))
    rows = rng.choice(500, 20, replace=False)
    values = np.where(np.arange(20) < rng.integers(1, 19), 1, -1).astype(np.int8)
    answers, opening = Answers(rows, values), Opening(index.vectors[0], index.vectors[:0])
    state = RoundState(
        index=index,
        answers=answers,
        opening=opening,
        lesson=lesson_of(index, answers, opening, seed),
        unanswered=np.setdiff1d(np.arange(500), rows),
        head=Head(np.zeros(4, np.float32), 0.0),
        scores=rng.standard_normal(480).astype(np.float32) * [3, 0.1][seed % 2],
        size=10,
        rng=rng,
    )
    expected = naive_rarefind(state, None if is_signed else naive_root_scores(state, seed))
    assert ranking.rarefind(state).rows.tolist() == expected


def test_a_second_head_has_a_say_where_no_answered_image_has_a_number_below_0(
    make_index, monkeypatch
):
    heads = []
    monkeypatch.setattr(ranking, "fit_on_roots", lambda lesson: heads.append(fit_on_roots(lesson)))

    def ask(vectors):
        index = make_index(vectors)
        answers = Answers(np.array([3, 8, 9]), np.array([1, -1, -1], np.int8))
        opening = Opening(index.vectors[0], index.vectors[:0])
        open_rows = np.setdiff1d(np.arange(len(vectors)), answers.rows)
        lesson = lesson_of(index, answers, opening)
        head = fit_steadied(lesson)
        scores = index.scores(head.weights, head.bias)[open_rows]
        rng = np.random.default_rng(0)
        ranking.rarefind(
            RoundState(index, answers, opening, lesson, open_rows, head, scores, 4, rng)
        )

    vectors = np.abs(np.random.default_rng(5).standard_normal((60, 5)))
    for row in (3, 9):
        signed = vectors.copy()
        signed[row, 2] = -0.1
        ask(signed)
    assert heads == []
    with pytest.raises(AttributeError):  # there is a second head, here None
        ask(vectors)
    assert len(heads) == 1


@pytest.mark.parametrize("is_signed", [True, False])
def test_rarefind_fills_rounds_of_any_size(make_index, is_signed):
    vectors = np.random.default_rng(6).standard_normal((1_500, 4))
    index = make_index(vectors if is_signed else np.abs(vectors))
    answers = Answers(np.array([3, 8, 9]), np.array([1, -1, -1], np.int8))
    opening = Opening(index.vectors[0], index.vectors[:0])
    open_rows = np.setdiff1d(np.arange(1_500), answers.rows)
    lesson = lesson_of(index, answers, opening)
    head = fit_steadied(lesson)
    scores = index.scores(head.weights, head.bias)[open_rows]
    for size in (12, 1_200, len(open_rows)):
        rng = np.random.default_rng(0)
        state = RoundState(index, answers, opening, lesson, open_rows, head, scores, size, rng)
        assert len(np.unique(ranking.rarefind(state).rows)) == size


def naive_root_scores(state, seed):
    """Of every image, by scikit-learn on centred roots: uncentred it ends a little elsewhere."""
    vectors = state.index.vectors.astype(float)
    yes, no = state.answers.positives, state.answers.negatives
    drawn = np.sort(np.random.default_rng(seed).choice(state.unanswered, 200, replace=False))
    likeness = vectors[drawn] @ vectors[yes].mean(axis=0)
    unlike = drawn[np.argsort(likeness, kind="stable")[:100]]
    centre = np.sqrt(state.index.mean) / state.index.mean.sum() ** 0.5
    roots = [[x**0.5 for x in vector] / sum(vector) ** 0.5 - centre for vector in vectors]
    model = LogisticRegression(C=30, class_weight="balanced", tol=1e-3)
    taught = [*yes, *no, *unlike]
    model.fit([roots[row] for row in taught], [row in yes for row in taught])
    return model.decision_function(roots)


def naive_rarefind(state, root_scores):
    vectors = state.index.vectors.astype(float)
    metric = state.index.metric
    scale = metric.rest * np.eye(4)
    for direction, gain in zip(metric.directions, metric.gains, strict=True):
        scale += (gain - metric.rest) * np.outer(direction, direction)
    scaled = (vectors - vectors.mean(axis=0)) @ scale
    scaled /= np.linalg.norm(scaled, axis=1, keepdims=True)
    yes, no = state.answers.positives.tolist(), state.answers.negatives.tolist()
    scores = dict(zip(state.unanswered.tolist(), state.scores.tolist(), strict=True))

    def nearest(row, others, vectors=vectors, most=1):
        return np.mean(sorted(vectors[row] @ vectors[other] for other in others)[-most:])

    by_doubt = sorted(scores, key=lambda row: (scores[row] < 0, abs(scores[row])))
    doubtful = by_doubt[: round(10 * len(yes) / len(yes + no))]
    twice = root_scores is not None
    compared = sorted(scores, key=lambda row: -scores[row])[: 400 if twice else 310]
    compared = [row for row in compared if row not in doubtful]
    if twice:
        for row in compared:
            scores[row] = (scores[row] + root_scores[row]) / 2
        compared = sorted(compared, key=lambda row: -scores[row])[:310]
    everyone = compared + yes + no

    def crowding(row):
        return np.mean(sorted(scaled[row] @ scaled[one] for one in everyone if one != row)[-10:])

    usual = np.median([crowding(row) for row in yes])
    merits = {
        row: scores[row]
        + 8 * nearest(row, yes, scaled, 3)
        - 8 * (nearest(row, no, scaled, 3) if no else 0)
        - 8 * max(crowding(row) - usual, 0)
        for row in compared
    }
    order = sorted(merits, key=lambda row: -merits[row])
    limit = 2.0
    if len(yes) > 1:
        limit = np.median([nearest(row, [one for one in yes if one != row]) for row in yes])
    chosen = []
    for row in order:
        if all(vectors[row] @ vectors[other] <= limit for other in chosen + doubtful):
            chosen.append(row)
    chosen += [row for row in order if row not in chosen]
    return doubtful + chosen[: 10 - len(doubtful)]


def test_most_ambiguous_looks_on_both_sides(make_state):
    assert ranking.most_ambiguous(make_state(6)).rows.tolist() == [6, 1, 5, 2, 7, 9]


def test_most_positive_takes_the_highest(make_state):
    choice = ranking.most_positive(make_state(4))
    assert choice.rows.tolist() == [4, 0, 2, 7]
    assert set(choice.reasons) == {"likely"}


def test_opening_only_ignores_scores(make_state):
    choice = ranking.opening_only(make_state(2, answered={8: 1, 3: -1, 5: -1}))
    assert choice.rows.tolist()[0] == 4  # it was opened with row 4; rows 3 and 5 are answered
    assert set(choice.rows.tolist()) < {4, 2, 6}
    assert set(choice.reasons) == {"opening"}


@pytest.mark.parametrize(
    ("answered", "examples", "expected"),
    [
        ({8: 1, 3: -1}, 0, [6, 1]),  # as many yes as no: ambiguous
        ({8: 1, 3: -1, 9: -1}, 0, [4, 0]),  # fewer yes: positive
        ({8: 1, 3: -1, 9: -1}, 1, [6, 1]),  # an uploaded example is a yes
        ({8: 1, 3: -1, 9: 0}, 0, [6, 1]),  # unsure counts for neither
    ],
)
def test_adaptive_switches_on_the_balance_of_answers(make_state, answered, examples, expected):
    state = make_state(2, answered=answered, examples=examples)
    assert ranking.adaptive(state).rows.tolist() == expected


def test_random_draws_every_unanswered_row_alike(make_state):
    counts = np.zeros(10)
    for seed in range(400):
        counts[ranking.random(make_state(2, seed=seed)).rows] += 1
    assert counts[[3, 8]].tolist() == [0, 0]
    # 100 expected each, standard deviation 8.7.
    assert (np.abs(counts[[0, 1, 2, 4, 5, 6, 7, 9]] - 100) < 40).all()
    again = ranking.random(make_state(5, seed=3)).rows
    assert again.tolist() == ranking.random(make_state(5, seed=3)).rows.tolist()


@pytest.mark.parametrize("k", [0, 1, 3, 7, 8, 20])
def test_smallest_is_a_stable_sort_cut_off(k):
    keys = np.array([3.0, 1.0, 2.0, 1.0, 2.0, 2.0, -5.0])
    assert smallest(keys, k).tolist() == np.argsort(keys, kind="stable")[:k].tolist()
