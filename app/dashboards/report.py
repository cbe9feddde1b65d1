"""What a methods section needs of a search."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC
from importlib.metadata import version

from sqlalchemy import Row, func, select
from sqlalchemy.dialects.postgresql import distinct_on

from app.dashboards.found import Found, tell_found
from app.dashboards.moments import Moment
from app.dashboards.stopping import Left, Stopping, tell_left, tell_stopping
from app.dashboards.variety import Variety, tell_variety
from app.engine.numerals import plural, spaced
from app.engine.strategies import get_strategy
from app.events import describe_rule, rule_of
from app.filtering import Filter, cover_filter, list_chips
from app.reporting import list_examples
from app.tables import (
    Action,
    Answer,
    Grouping,
    ImageIndex,
    Person,
    Pool,
)


@dataclass(frozen=True)
class Report:
    """What a methods section needs of a search."""

    facts: list[tuple[str, str]]
    found: Found
    left: Left
    stopping: Stopping
    variety: Variety


def describe_report(moment: Moment) -> Report:
    """Target, collection, embedder, strategies, answers, people, rule, estimates, versions."""
    session, search = moment.session, moment.search
    row = session.get_one(ImageIndex, moment.made.index_id)
    submitted = moment.rounds[: moment.after]
    strategies = Counter(made.strategy for made in submitted if made.detour_id is None)
    # Who gave each answer that stands; taken back and done again, it is still one answer.
    standing = select(Answer.action_id, Answer.value).where(Answer.search_id == search.id)
    if not moment.is_now:
        standing = standing.where(Answer.id <= moment.made.answers_through_id)
    last = (
        standing.order_by(Answer.image_id, Answer.id.desc())
        .ext(distinct_on(Answer.image_id))
        .subquery()
    )
    people = (
        select(Person.name, func.count())
        .join(Action, Action.person_id == Person.id)
        .join(last, last.c.action_id == Action.id)
        .where(last.c.value != "cleared")
        .group_by(Person.name)
        .order_by(Person.name)
    )
    examples = list_examples(session, search)
    words = [one.words for one in examples if one.words]
    photos = sum(one.photo_id is not None for one in examples)
    images = sum(one.image_id is not None for one in examples)
    opened = [plural(images, "image") + " of the collection"] * bool(images)
    opened += [plural(photos, "photo")] * bool(photos) + [f"the words “{one}”" for one in words]
    pool = session.get(Pool, moment.made.pool_id) if moment.made.pool_id is not None else None
    searched_in = "all of them"
    if pool is not None:
        kept = Filter(tuple((key, value) for key, value in pool.filter))
        chips = list_chips(session, cover_filter(kept, moment.sight))
        # A pool of a file may have come from a filter that says nothing here.
        said = "; ".join(chip.words for chip in chips) or "those that a filter kept"
        searched_in = f"{spaced(moment.image_count)} of them: {said}"
    facts = [
        ("Target", search.target_name),
        ("Counts as yes", search.counts_as_yes or "not written down"),
        ("Does not count", search.counts_as_no or "not written down"),
        ("Collection", f"{search.collection.name}, {plural(row.image_count, 'image')}"),
        ("Searched in", searched_in),
        *_describe_events(moment),
        ("Opened with", " and ".join(opened)),
        ("Images compared by", f"{row.embedder}, revision {row.revision}"),
        (
            "Images chosen by",
            ", ".join(
                f"{get_strategy(name).title} ({name}; {plural(count, 'round')})"
                for name, count in strategies.items()
            )
            or "nothing yet",
        ),
        (
            "Rounds",
            f"{moment.after}, of them {sum(made.detour_id is not None for made in submitted)} "
            "asked for on the dashboard",
        ),
        ("Answers given by", _name_people(session.execute(people).all())),
        (
            "From … to",
            f"{search.made_at.astimezone(UTC):%Y-%m-%d %H:%M} … "
            f"{moment.made.proposed_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC",
        ),
        ("Seed", str(search.seed)),
        ("Rarefind", f"version {version('rarefind')}"),
    ]
    return Report(
        facts,
        tell_found(moment),
        tell_left(moment),
        tell_stopping(moment),
        tell_variety(moment),
    )


def _describe_events(moment: Moment) -> list[tuple[str, str]]:
    if moment.made.grouping_id is None:
        return []
    grouping = moment.session.get_one(Grouping, moment.made.grouping_id)
    rule = describe_rule(rule_of(grouping))
    counts = f"{spaced(grouping.event_count)} events hold {plural(grouping.image_count, 'image')}"
    return [("Events", f"{rule} {counts}. Statements of how many are left count events.")]


def _name_people(counts: Sequence[Row[str, int]]) -> str:
    return ", ".join(f"{name} ({plural(count, 'answer')})" for name, count in counts) or "nobody"
