"""The register of strategies: how the next images are chosen, by name."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from app.engine import EngineError
from app.engine.head import Head
from app.engine.strategies import decern, diversity, neighbours, ranking, uncertainty
from app.engine.strategies.fitting import fit_on_answers, fit_on_tight_budget, fit_steadied
from app.engine.strategies.round_state import Chooser, Lesson
from app.engine.strategies.subpool import within_anchors


class UnknownStrategy(EngineError):
    """A name that is not in the register."""


class StrategyNeedsAllScores(EngineError):
    """A strategy that looks at more than a shortlist, on an index that gives no more."""


@dataclass(frozen=True)
class Strategy:
    """One entry of the register.

    `title` and `summary` are for people; `fit` makes the head whose scores `choose` is given.
    `for_evaluators`: of use in a comparison rather than in a hunt. `opens_at_random`: round 1 is
    drawn by lot instead of being nearest to the opening. `needs_all`: it looks at every image and
    can't choose from a shortlist.
    """

    choose: Chooser
    title: str
    summary: str
    fit: Callable[[Lesson], Head] = fit_on_answers
    for_evaluators: bool = True
    needs_all: bool = True
    opens_at_random: bool = False


STRATEGIES: dict[str, Strategy] = {
    "rarefind": Strategy(
        ranking.rarefind,
        "Most finds, soonest",
        "Shows the images that are most likely your target, and avoids several that look alike in "
        "one round. The more often you say yes, the more it asks about those it is least sure of.",
        fit=fit_steadied,
        for_evaluators=False,
        needs_all=False,
    ),
    "pf-ma": Strategy(
        ranking.pf_ma,
        "Likely, least sure first",
        "Shows images that are probably your target, starting with those it is least sure of.",
        for_evaluators=False,
        needs_all=False,
    ),
    "most-positive": Strategy(
        ranking.most_positive,
        "Most likely first",
        "Shows the images that look most like your target: many finds early, few surprises.",
        for_evaluators=False,
        needs_all=False,
    ),
    "most-ambiguous": Strategy(
        ranking.most_ambiguous,
        "Least sure first",
        "Shows the images it cannot decide on: it learns fast, but you see many that are not it.",
        needs_all=False,
    ),
    "adaptive": Strategy(
        ranking.adaptive,
        "Balance yes and no",
        "Shows the most likely images while you have said no more often than yes, otherwise those "
        "it cannot decide on.",
        fit=fit_on_tight_budget,
        needs_all=False,
    ),
    "tropel": Strategy(
        ranking.most_positive,
        "Most likely first, plain",
        "Shows the most likely images and learns from your answers alone.",
        needs_all=False,
    ),
    "coreset": Strategy(
        diversity.coreset,
        "Unlike anything seen",
        "Shows the images least like all those you answered, to spread over the collection.",
    ),
    "typiclust": Strategy(
        diversity.typiclust,
        "One of each kind",
        "Sorts the collection into groups and shows a typical image of each group not seen yet.",
    ),
    "probcover": Strategy(
        diversity.probcover,
        "Widest view",
        "Shows the images that have the most others close to them, to see the collection quickly.",
    ),
    "badge": Strategy(
        uncertainty.badge,
        "Unsure and varied",
        "Shows images it is unsure of and that differ from each other.",
    ),
    "alfa-mix": Strategy(
        uncertainty.alfa_mix,
        "Easily swayed",
        "Shows images whose prediction would change if they looked a little more like your yes or "
        "no images.",
    ),
    "decern": Strategy(
        decern.decern,
        "Fine differences",
        "Shows images that are easily confused with your target, spread over their kinds.",
    ),
    "hard-negative": Strategy(
        neighbours.hard_negative,
        "Look-alikes",
        "Shows images nearly as close to your target as the ones you found.",
    ),
    "active-search": Strategy(
        neighbours.active_search,
        "Look around the finds",
        "Shows images near those you said yes to, thinking one step ahead.",
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


ANCHORAL = "anchoral:"


def get_strategy(name: str) -> Strategy:
    """The strategy of that name; `anchoral:NAME` is NAME inside a pool around the answers.

    Raises UnknownStrategy, which names the known ones.
    """
    inner = name.removeprefix(ANCHORAL)
    if inner not in STRATEGIES:
        known = ", ".join(STRATEGIES)
        raise UnknownStrategy(
            f"no strategy is called {name!r}; choose one of {known}, or {ANCHORAL} before one"
        )
    if inner == name:
        return STRATEGIES[name]
    plain = STRATEGIES[inner]
    return replace(
        plain,
        choose=within_anchors(plain.choose),
        title=f"{plain.title}, near the answers",
        summary=f"{plain.summary} Only looks around images you have answered.",
        for_evaluators=True,
        needs_all=True,
    )


def check_reach(name: str, *, ranks_all: bool) -> None:
    """Raise StrategyNeedsAllScores, with the names of others, where not all images are ranked and
    the strategy of that name can't do without.
    """
    if ranks_all or not get_strategy(name).needs_all:
        return
    able = ", ".join(key for key, entry in STRATEGIES.items() if not entry.needs_all)
    raise StrategyNeedsAllScores(
        f"{name} looks at every image, and this collection has too many for that. Choose one of "
        f"{able}"
    )
