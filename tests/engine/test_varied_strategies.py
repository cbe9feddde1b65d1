"""The other strategies: exact rows by hand or by a naive loop written from their definition."""

import numpy as np
import pytest
from sklearn.cluster import kmeans_plusplus

from app.engine.answers import Answers, Opening
from app.engine.head import Head
from app.engine.strategies import (
    STRATEGIES,
    decern,
    diversity,
    get_strategy,
    neighbours,
    ranking,
    uncertainty,
)
from app.engine.strategies.clustering import seed_greedily
from app.engine.strategies.round_state import Lesson, RoundState


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def circle(degrees):
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def sigmoid(score):
    return 1 / (1 + np.exp(-np.asarray(score, dtype=float)))


def state_of(index, *, yes=(), no=(), size=3, weights=None, bias=0.0, examples=None, seed=0):
    rows = np.array([*yes, *no], np.int64)
    values = np.array([1] * len(yes) + [-1] * len(no), np.int8)
    weights = np.zeros(index.dimension) if weights is None else weights
    head = Head(np.asarray(weights, np.float32), bias)
    examples = np.empty((0, index.dimension), np.float32) if examples is None else examples
    unanswered = np.setdiff1d(np.arange(index.count), rows)
    positives = np.concatenate([index.vectors[list(yes)], examples])
    rng = np.random.default_rng(seed)
    return RoundState(
        index=index,
        answers=Answers(rows, values),
        opening=Opening(index.vectors[0], examples),
        lesson=Lesson(index, positives, index.vectors[list(no)], unanswered, rng),
        unanswered=unanswered,
        head=head,
        scores=index.scores(head.weights, head.bias)[unanswered],
        size=size,
        rng=rng,
    )


@pytest.fixture(scope="module")
def cloud(make_index):
    """60 images in 6 dimensions."""
    return make_index(np.random.default_rng(2).standard_normal((60, 6)))


WEIGHTS = np.array([3.0, -2.0, 1.0, 0.5, 0.0, -4.0])


# Diversity


def test_coreset_goes_farthest_first(make_index):
    index = make_index(circle([0, 10, 170, 100, 60, 250]))
    # From 0 degrees: 170 is farthest, then 250 (80 from 170), then 100 (70), then 60 (40).
    choice = diversity.coreset(state_of(index, yes=[0], size=4))
    assert choice.rows.tolist() == [2, 5, 3, 4]
    assert set(choice.reasons) == {"exploration"}


def test_coreset_keeps_away_from_what_it_has_just_chosen(make_index):
    index = make_index(circle([0, 170, 175, 60]))
    assert diversity.coreset(state_of(index, yes=[0], size=2)).rows.tolist() == [2, 3]


def test_coreset_starts_from_every_answer(make_index):
    index = make_index(circle([0, 10, 170, 100, 60, 250]))
    # From 0 and 170 degrees: 250 is 80 from the nearest, 100 is 70.
    assert diversity.coreset(state_of(index, yes=[0], no=[2], size=2)).rows.tolist() == [5, 3]
    # From 0 and 250 degrees: 100 is 100 from the nearest, then 170 is 70.
    assert diversity.coreset(state_of(index, yes=[0], no=[5], size=2)).rows.tolist() == [3, 2]


def test_typiclust_shows_the_middle_of_the_largest_groups_without_an_answer(make_index):
    def group(axis, angles):
        vectors = np.zeros((len(angles), 6))
        vectors[:, 2 * axis : 2 * axis + 2] = circle(angles)
        return vectors

    index = make_index(
        np.concatenate(
            [
                group(0, [0, 2, 4, 6, 8, 10, 12, 14, 16, 18]),  # rows 0-9, answered
                group(1, [0, 5, 7, 20, 9]),  # rows 10-14: row 12 is nearest to all others
                group(2, [30, 5, 8, 10, 14, 40, 12]),  # rows 15-21: row 21
            ]
        )
    )
    choice = diversity.typiclust(state_of(index, yes=[4], size=2))
    assert choice.rows.tolist() == [21, 12]


@pytest.mark.parametrize("k", [1, 5, 90])  # few distances at a time, and all at once
@pytest.mark.parametrize("is_weighted", [False, True])
def test_greedy_seeds_are_those_of_scikit_learn(k, is_weighted):
    rng = np.random.default_rng(k)
    vectors = rng.standard_normal((600, 24)).astype(np.float32)
    weights = rng.random(600) if is_weighted else None
    taken = seed_greedily(vectors, k, np.random.RandomState(3), weights)
    _, expected = kmeans_plusplus(
        vectors,
        k,
        sample_weight=None if weights is None else weights.astype(np.float32),
        random_state=3,
    )
    assert taken.tolist() == expected.tolist()


def test_greedy_seeds_repeat_when_too_few_vectors_differ():
    vectors = np.repeat(np.eye(2, dtype=np.float32), 3, axis=0)
    taken = seed_greedily(vectors, 4, np.random.RandomState(0))
    assert len(taken) == 4
    assert len(np.unique(vectors[taken], axis=0)) == 2


def test_probcover_takes_the_largest_balls_not_covered_by_an_answer(make_index):
    sizes = [3, 9, 2, 7, 5] + [1] * 15  # 20 looks, each a direction of its own
    looks = np.repeat(np.arange(20), sizes)
    index = make_index(np.eye(20)[looks])
    first_of = [int(np.argmax(looks == look)) for look in range(20)]

    choice = diversity.probcover(state_of(index, no=[first_of[1]], size=3))

    assert choice.rows.tolist() == [first_of[3], first_of[4], first_of[0]]


def test_probcover_balls_stay_within_one_cluster(make_index):
    # Two looks 20 degrees apart, and 18 single ones far away: a ball wider than 20 degrees would
    # cover both, and the second would never be shown.
    far = np.zeros((18, 20))
    far[:, 2:] = np.eye(18)
    near = np.zeros((14, 20))
    near[:, :2] = circle([0] * 8 + [20] * 6)
    index = make_index(np.concatenate([near, far]))
    choice = diversity.probcover(state_of(index, no=[31], size=2))
    assert choice.rows.tolist() == [0, 8]


# Uncertainty and variety


def test_badge_seeds_far_apart_gradients(cloud):
    state = state_of(cloud, yes=[1, 2], no=[3], size=6, weights=WEIGHTS, bias=-0.4, seed=7)
    rows = state.unanswered
    chances = sigmoid(cloud.vectors[rows] @ WEIGHTS - 0.4)
    gradients = (chances - np.round(chances))[:, None] * cloud.vectors[rows]
    rng = np.random.default_rng(7)
    taken = [int(np.argmax((gradients**2).sum(axis=1)))]
    while len(taken) < 6:
        distances = ((gradients[:, None] - gradients[taken]) ** 2).sum(axis=2).min(axis=1)
        distances[distances < 1e-6] = 0
        taken.append(int(rng.choice(len(rows), p=distances / distances.sum())))

    assert uncertainty.badge(state).rows.tolist() == rows[taken].tolist()


def test_alfa_mix_takes_what_flips_first(make_index):
    # Scores are 10 times the first coordinate: anchors score 8 (yes) and -6 (no).
    first = np.array([0.8, -0.6, 0.1, -0.1, 0.5, 0.02, -0.9])
    vectors = np.stack([first, np.sqrt(1 - first**2), np.zeros(7)], axis=1)
    index = make_index(vectors)
    state = state_of(index, yes=[0], no=[1], size=3, weights=[10, 0, 0])
    # Row 5 flips toward no from 0.2/6.2 = 0.032 on, row 3 toward yes from 1/9 = 0.111, row 2 from
    # 1/7 = 0.143, row 4 from 5/11, row 6 from 9/17. Steps of 1/32 stop at 5/32 = 0.156.
    choice = uncertainty.alfa_mix(state)
    assert choice.rows.tolist() == [5, 3, 2]


def test_alfa_mix_spreads_over_the_kinds_that_flip(make_index):
    rng = np.random.default_rng(0)
    kinds = np.repeat(np.eye(4)[1:], [10, 10, 10], axis=0) + rng.normal(0, 0.01, (30, 4))
    kinds[:, 0] = rng.uniform(0.01, 0.02, 30)  # all flip within one step
    index = make_index(np.concatenate([[[1, 0, 0, 0], [-1, 0, 0, 0]], kinds]))
    choice = uncertainty.alfa_mix(state_of(index, yes=[0], no=[1], size=3, weights=[9, 0, 0, 0]))
    assert sorted((choice.rows - 2) // 10) == [0, 1, 2]


def naive_confusion(vectors, weights, bias, yes, no):
    """The formulas of the paper for one image at a time, with whole class distributions."""
    R = 0.1

    def predict(z):
        p = sigmoid(z @ weights + bias)
        return np.array([1 - p, p])

    def entropy(p):
        return -(p * np.log(p)).sum()

    mask = np.zeros(len(weights))
    mask[np.argsort(-np.abs(weights), kind="stable")[: max(1, round(R * len(weights)))]] = 1
    scores = []
    for z in vectors:
        p_u = predict(z)
        total = 0.0
        for own_class, rows in ((1, yes), (0, no)):
            z_j = vectors[rows].mean(axis=0)
            p_anchor = np.mean([predict(vectors[row]) for row in rows], axis=0)
            a = p_u[own_class]
            p_m = predict((1 - mask) * z + mask * (z * (1 - a) + z_j * a))
            p_b = (1 - a) * p_u + a * p_anchor
            p_w = (1 - R * a) * p_u + R * a * p_anchor
            beta = 1 - (1 + z @ z_j / np.linalg.norm(z) / np.linalg.norm(z_j)) / 2

            def s_dc(q, p_m=p_m, beta=beta):
                return entropy(p_m) ** (1 - beta) + (-(q * np.log(p_m)).sum()) ** beta

            total += (1 - R) * s_dc(p_u) + R * s_dc(p_b) + s_dc(p_w)
        scores.append(total / 2)
    return np.array(scores)


def test_decern_uncertainty_is_that_of_the_formulas(cloud):
    state = state_of(cloud, yes=[1, 2, 9], no=[3, 4], weights=WEIGHTS, bias=-0.4)
    expected = naive_confusion(cloud.vectors.astype(float), WEIGHTS, -0.4, [1, 2, 9], [3, 4])
    np.testing.assert_allclose(decern.confusion(state), expected[state.unanswered], rtol=1e-4)


def test_decern_shows_the_best_of_each_kind_of_uncertain_image(cloud):
    state = state_of(cloud, yes=[1, 2, 9], no=[3, 4], size=55, weights=WEIGHTS, bias=-0.4)
    # As many clusters as images: everything, the most uncertain first.
    expected = naive_confusion(cloud.vectors.astype(float), WEIGHTS, -0.4, [1, 2, 9], [3, 4])
    order = state.unanswered[np.argsort(-expected[state.unanswered])]
    assert decern.decern(state).rows.tolist() == order.tolist()


@pytest.mark.parametrize("seed", range(6))
def test_decern_shows_the_best_trade_of_typical_and_far_from_the_anchors(make_index, seed):
    rng = np.random.default_rng(seed)
    index = make_index(rng.standard_normal((60, 6)))
    weights = rng.standard_normal(6) * 4
    yes, no = [1, 2, 9], [3, 4]
    state = state_of(index, yes=yes, no=no, size=1, weights=weights, bias=-0.4)
    uncertainty = naive_confusion(index.vectors.astype(float), weights, -0.4, yes, no)

    own = uncertainty[state.unanswered]
    skew = (((own - own.mean()) / own.std()) ** 3).mean()
    rows = state.unanswered[own > own.mean() + np.tanh(max(skew, 0)) * own.std()]
    # With one image wanted there is one cluster; its centre is weighted by uncertainty.
    centre = unit((uncertainty[rows, None] * index.vectors[rows]).sum(axis=0))
    anchors = unit(np.stack([index.vectors[yes].mean(axis=0), index.vectors[no].mean(axis=0)]))
    quality = -0.8 * (1 - index.vectors[rows] @ centre) + 0.2 * (
        1 - index.vectors[rows] @ anchors.T
    ).min(axis=1)
    assert decern.decern(state).rows.tolist() == [rows[np.argmax(quality)]]


# Neighbours of the positives


def test_hard_negative_sums_what_exceeds_each_positive(cloud):
    example = unit(np.random.default_rng(5).standard_normal((1, 6))).astype(np.float32)
    state = state_of(cloud, yes=[1, 2, 9], no=[3], size=8, examples=example)
    positives = np.concatenate([cloud.vectors[[1, 2, 9]], example])
    target = unit(positives.mean(axis=0))

    def weight(vector):
        return sum(max(0.2 + vector @ target - p @ target, 0) for p in positives)

    expected = sorted(state.unanswered, key=lambda row: -weight(cloud.vectors[row]))[:8]
    assert neighbours.hard_negative(state).rows.tolist() == expected


def naive_active_search(vectors, labels, unanswered):
    """Value of each unanswered image, refitting the neighbour model for each possible answer."""

    def similar(i, j):
        nearest = sorted((vectors[i] @ vectors[k] for k in known_or_open if k != i), reverse=True)
        similarity = vectors[i] @ vectors[j]
        return max(similarity, 0) if similarity >= nearest[min(20, len(nearest)) - 1] else 0

    known_or_open = [*labels, *unanswered]
    weights = {(i, j): similar(i, j) for i in unanswered for j in known_or_open if j != i}

    def chance(i, known):
        yes = 0.1 + sum(weights[i, j] for j, value in known.items() if value == 1)
        return yes / (1 + sum(weights[i, j] for j in known))

    values = {}
    for x in unanswered:
        p = chance(x, labels)
        best = [
            max(chance(other, labels | {x: value}) for other in unanswered if other != x)
            for value in (0, 1)
        ]
        values[x] = p + p * best[1] + (1 - p) * best[0]
    return values


@pytest.mark.parametrize("seed", range(4))
def test_active_search_looks_one_step_ahead(make_index, seed):
    index = make_index(np.random.default_rng(seed).standard_normal((34, 5)))
    labels = {0: 1, 1: 1, 2: 0, 3: 0}
    state = state_of(index, yes=[0, 1], no=[2, 3], size=15)
    values = naive_active_search(index.vectors.astype(float), labels, state.unanswered.tolist())
    expected = sorted(values, key=lambda row: -values[row])[:15]
    assert neighbours.active_search(state).rows.tolist() == expected


# Around other strategies


def test_anchoral_stays_in_the_pool_around_the_answers(make_index):
    index = make_index(np.random.default_rng(6).standard_normal((1500, 4)))
    weights = [-2.0, 1.0, 0.0, 1.0]
    answered = [5, 6, 7, 8]
    state = state_of(index, yes=answered[:1], no=answered[1:], size=5, weights=weights)
    similarities = index.vectors @ index.vectors[answered].T
    similarities[answered] = -2
    pool = np.unique(np.argsort(-similarities, axis=0)[:250])
    assert len(pool) < 1000
    scores = index.vectors[pool] @ np.array(weights)

    choice = get_strategy("anchoral:most-positive").choose(state)

    assert choice.rows.tolist() == pool[np.argsort(-scores)[:5]].tolist()
    assert choice.rows.tolist() != ranking.most_positive(state).rows.tolist()


def test_anchoral_draws_ten_anchors_of_each_class(make_index):
    # 40 answered yes in one place each far from the others: 10 of them have their neighbour shown.
    vectors = np.repeat(np.eye(40), 2, axis=0)
    index = make_index(vectors)
    state = state_of(index, yes=range(0, 80, 2), size=1, weights=np.arange(40.0))
    seen = set()
    for seed in range(5):
        fresh = state_of(index, yes=range(0, 80, 2), size=1, weights=np.arange(40.0), seed=seed)
        seen.add(int(get_strategy("anchoral:most-positive").choose(fresh).rows[0]))
    assert len(state.unanswered) == 40
    assert seen == {79}  # 100 images an anchor: the pool holds all that is left


def test_register_speaks_to_people():
    for strategy in STRATEGIES.values():
        assert strategy.summary.endswith(".")
        assert "embedding" not in strategy.summary
    assert len({strategy.title for strategy in STRATEGIES.values()}) == len(STRATEGIES)
    assert get_strategy("anchoral:pf-ma").summary.startswith(STRATEGIES["pf-ma"].summary)
