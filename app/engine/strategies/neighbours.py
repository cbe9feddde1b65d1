"""Strategies that look at what lies near the positives."""

import numpy as np
from numpy.typing import NDArray

from app.engine.strategies.clustering import fill_up
from app.engine.strategies.round_state import LIKELY, Choice, RoundState, smallest

Floats = NDArray[np.float32]

MARGIN = 0.2
SEARCHED = 1_000  # images near the positives between which neighbourhoods are known
NEIGHBOURS = 20
PRIOR = 0.1  # what one image without answered neighbours is worth


def hard_negative(state: RoundState) -> Choice:
    """Images nearly as close to the target as its positives are: likely look-alikes.

    With t the positives' mean, an image weighs the sum over positives p of
    [0.2 + cos(image, t) - cos(p, t)]+; equal weights go by cosine to t.
    Source: D. U. Jo, K. Lee, J. Chung, J. Y. Choi, "Active Learning for Finely-Categorized
    Image-Text Retrieval by Selecting Hard Negative Unpaired Samples", arXiv 2405.16301, 2024. Their
    texts are sentences that share an image-text space; the mean of the positives stands for the
    target's only one.
    """
    positives = np.concatenate(
        [state.index.vectors[state.answers.positives], state.opening.examples]
    )
    mean = positives.mean(axis=0)
    target = mean / np.linalg.norm(mean)
    cosines = state.index.similarities(target)[state.unanswered]
    weights = np.zeros(len(cosines))
    for cosine in positives @ target:
        weights += np.maximum(MARGIN + cosines - cosine, 0)
    # The cosine decides among equals: it is far below what one positive adds to a weight.
    order = smallest(-(weights + 1e-6 * cosines), state.size)
    return Choice.of(state.unanswered[order], LIKELY)


def active_search(state: RoundState) -> Choice:
    """Expected positives now and one step ahead, by a nearest-neighbour model.

    p(image) = (0.1 + similarity to yes-neighbours) / (1 + similarity to answered neighbours), over
    its 20 nearest. The value of showing it is p plus the best p that is left after its answer,
    averaged over the two answers.
    Source: R. Garnett et al., "Bayesian Optimal Active Search and Surveying", ICML 2012; S. Jiang,
    R. Garnett, B. Moseley, "Cost Effective Active Search", NeurIPS 2019. Only the 1,000 images
    nearest to the positives are looked at; the images of a round are the best by this value,
    without looking ahead between them. The head is not used.
    """
    vectors = state.index.vectors
    positives = np.concatenate([vectors[state.answers.positives], state.opening.examples])
    each = max(state.size, SEARCHED // len(positives))
    _, near = state.index.nearest(positives, each, rows=state.unanswered)
    rows = np.unique(near)
    own = vectors[rows]
    answered = np.concatenate([state.answers.positives, state.answers.negatives])
    known = np.concatenate([vectors[answered], state.opening.examples])
    is_yes = np.arange(len(known)) < len(state.answers.positives)
    is_yes |= np.arange(len(known)) >= len(answered)
    weights = _neighbour_weights(own @ np.concatenate([known, own]).T, len(known))
    to_known, to_each_other = weights[:, : len(known)], weights[:, len(known) :]
    yes_weight = PRIOR + to_known[:, is_yes].sum(axis=1)
    all_weight = 1 + to_known.sum(axis=1)
    now = yes_weight / all_weight
    # Row i, column j: the chance of image i once image j is answered.
    after_yes = (yes_weight[:, None] + to_each_other) / (all_weight[:, None] + to_each_other)
    after_no = yes_weight[:, None] / (all_weight[:, None] + to_each_other)
    for after in (after_yes, after_no):
        np.fill_diagonal(after, 0)
    value = now + now * after_yes.max(axis=0) + (1 - now) * after_no.max(axis=0)
    chosen = rows[smallest(-value, state.size)]
    return Choice.of(fill_up(chosen, state.unanswered, state.size), LIKELY)


def _neighbour_weights(similarities: Floats, known_count: int) -> Floats:
    """Similarities to the nearest 20 others, 0 for the rest. Column known_count + i is image i."""
    itself = np.arange(len(similarities))
    similarities[itself, known_count + itself] = 0
    if similarities.shape[1] > NEIGHBOURS:
        kth = np.partition(similarities, -NEIGHBOURS, axis=1)[:, -NEIGHBOURS, None]
        similarities[similarities < kth] = 0
    return np.maximum(similarities, 0)
