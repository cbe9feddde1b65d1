"""The register of strategies: how the next images are chosen, by name."""

from collections.abc import Callable
from dataclasses import dataclass

from app.engine import EngineError
from app.engine.head import Head
from app.engine.strategies import ranking
from app.engine.strategies.fitting import Lesson, fit_on_answers, fit_on_tight_budget
from app.engine.strategies.round_state import Chooser


class UnknownStrategy(EngineError):
    """A name that is not in the register."""


@dataclass(frozen=True)
class Strategy:
    """One entry of the register.

    `title` and `summary` are for people; `fit` makes the head that `choose` works with.
    """

    choose: Chooser
    title: str
    summary: str
    fit: Callable[[Lesson], Head] = fit_on_answers
    for_evaluators: bool = True
    opens_at_random: bool = False


STRATEGIES: dict[str, Strategy] = {
    "pf-ma": Strategy(
        ranking.pf_ma,
        "Likely, least sure first",
        "Shows images that are probably your target, starting with those it is least sure of.",
        for_evaluators=False,
    ),
    "most-positive": Strategy(
        ranking.most_positive,
        "Most likely first",
        "Shows the images that look most like your target: many finds early, few surprises.",
        for_evaluators=False,
    ),
    "most-ambiguous": Strategy(
        ranking.most_ambiguous,
        "Least sure first",
        "Shows the images it cannot decide on: it learns fast, but you see many that are not it.",
    ),
    "adaptive": Strategy(
        ranking.adaptive,
        "Balance yes and no",
        "Shows the most likely images while you have said no more often than yes, otherwise those "
        "it cannot decide on.",
        fit=fit_on_tight_budget,
    ),
    "opening-only": Strategy(
        ranking.opening_only,
        "Do not learn",
        "Goes down the list of images most like your examples and never learns from your answers.",
    ),
    "random": Strategy(
        ranking.random,
        "By chance",
        "Shows images drawn by lot: for comparison only.",
        opens_at_random=True,
    ),
}


def get_strategy(name: str) -> Strategy:
    """The strategy of that name. Raises UnknownStrategy, which names the known ones."""
    if name not in STRATEGIES:
        raise UnknownStrategy(
            f"no strategy is called {name!r}; choose one of {', '.join(STRATEGIES)}"
        )
    return STRATEGIES[name]
