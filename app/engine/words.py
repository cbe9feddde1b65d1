"""Words as a vector: what a person types, put into prompts that such models have seen much of."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from app.engine.answers import make_opening

Floats = NDArray[np.float32]

# The person's own words first and bare. The others are how people caption photos of organisms; none
# says "animal" or "bird", since nobody knows what is looked for.
PROMPTS = (
    "{}",
    "a photo of a {}.",
    "a photo of the {}, in the wild.",
    "a close-up photo of a {}.",
    "a photo of a {} in the distance.",
    "a blurry photo of a {}.",
    "a camera trap photo of a {}.",
)


def embed_words(words: str, embed_text: Callable[[list[str]], Floats]) -> Floats:
    """The vector of words: the mean over PROMPTS, brought back to unit length.

    Parameters: `words`, not empty; `embed_text`, of an embedder, gives (t, d) float32 unit rows for
    t texts. Returns (d,) float32, unit.
    Source: prompt ensembling in embedding space, A. Radford et al., "Learning Transferable Visual
    Models From Natural Language Supervision", ICML 2021, section 3.1.4. The prompts are ours.
    """
    return make_opening(embed_text([prompt.format(words) for prompt in PROMPTS]))
