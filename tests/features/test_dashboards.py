"""The dashboard's figures: against counts, at earlier rounds, the same on every opening."""

from collections import Counter
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
from sqlalchemy import select, update

from app import removing, searching
from app.adjusting import filter_search
from app.answers import read_current_answers
from app.dashboards.found import tell_found
from app.dashboards.moments import open_moment
from app.dashboards.report import describe_report
from app.dashboards.stopping import (
    build_standing,
    choose_goal,
    judge_left,
    tell_left,
    tell_stopping,
)
from app.dashboards.trust import judge_word, tell_head
from app.dashboards.variety import tell_history, tell_looks, tell_variety
from app.engine.reliability import group_chances, sum_chances
from app.engine.remaining import run_of_negatives
from app.errors import BadInput, NotFound
from app.filtering import Filter, read_filter
from app.indexing import LoadedEmbedders, OpenIndexes
from app.premises import read_plan
from app.reporting import current_grid
from app.sensitive import EXACT
from app.steps import undo
from app.tables import Action, Detour
from app.workers import Readers
from tests.factories import make_collection, make_images, make_index, make_person


class Hunt:
    """A search among 300 images; the target has two looks, of which one opened the search."""

    def __init__(self, session, settings):
        self.session, self.person = session, make_person(session)
        collection = make_collection(session)
        self.images = make_images(session, collection, 300)
        rng = np.random.default_rng(2)
        vectors = rng.normal(size=(300, 16))
        looks = 5 * rng.normal(size=(2, 16))
        vectors[:34] *= 0.5
        vectors[:20] += looks[0]
        vectors[20:34] += looks[0] + 0.8 * looks[1]
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        make_index(session, settings, self.images, vectors.astype(np.float32))
        self.targets = {image.id for image in self.images[:34]}
        self.indexes = OpenIndexes(settings)
        self.search = searching.open_search(
            session,
            person=self.person,
            collection_id=collection.id,
            target_name="Heron",
            strategy="most-positive",
            image_ids=[self.images[0].id],
            photo_ids=[],
            indexes=self.indexes,
            embedders=LoadedEmbedders(settings, Readers(settings)),
            settings=settings,
            round_size=6,
            seed=4,
        )

    def shown(self):
        return [
            card.image_id for card in current_grid(self.session, self.search, self.person).cards
        ]

    def answer(self, image_id, value):
        searching.record_answers(
            self.session,
            self.search,
            person=self.person,
            round_id=self.search.current_round_id,
            values={image_id: value},
            gesture_key=None,
        )

    def submit(self, values=None):
        given = {i: "yes" if i in self.targets else "no" for i in self.shown()}
        searching.submit_answers(
            self.session,
            self.search,
            person=self.person,
            round_id=self.search.current_round_id,
            values=given if values is None else values,
            rest_are_no=False,
            gesture_key=None,
            indexes=self.indexes,
        )

    def take(self, kind, size, embedder=None):
        searching.take_detour(
            self.session,
            self.search,
            person=self.person,
            kind=kind,
            size=size,
            embedder=embedder,
            gesture_key=None,
            indexes=self.indexes,
        )

    def answers(self):
        return read_current_answers(self.session, self.search)

    def moment(self, after=None):
        return open_moment(self.session, self.search, self.indexes, after, sight=EXACT)


@pytest.fixture
def hunt(session, settings):
    hunt = Hunt(session, settings)
    for _ in range(3):
        hunt.submit()
    return hunt


def tell_all(moment):
    parts = (tell_found, tell_variety, tell_history, tell_looks, tell_left, tell_head)
    return repr([tell(moment) for tell in parts])


def test_found_counts_what_the_answers_say(hunt):
    hunt.answer(hunt.shown()[0], "unsure")
    found = tell_found(hunt.moment())
    tally = Counter(hunt.answers().values())
    assert (found.positives, found.negatives, found.unsure) == (
        tally["yes"],
        tally["no"],
        tally["unsure"],
    )
    assert found.answered == 1 + 3 * 6 + 1  # the example, three rounds, the one just now
    assert found.examples == 1
    # What the search was opened with is no yield of its.
    assert found.per_hundred == pytest.approx(100 * (tally["yes"] - 1) / 19)
    assert [sum(row[1:]) for row in found.plot.rows] == [6, 6, 6]
    assert sum(row[1] for row in found.plot.rows) == tally["yes"] - 1  # without the example


def test_yes_of_the_last_rounds_are_told_in_the_right_number(session, settings):
    hunt = Hunt(session, settings)
    first, *others = hunt.shown()
    hunt.submit({first: "yes"} | dict.fromkeys(others, "no"))
    told = tell_found(hunt.moment()).plot.sentence
    assert told.startswith("Of the 6 images in the last round, 1 was a yes.")
    hunt.submit(dict.fromkeys(hunt.shown(), "yes"))
    told = tell_found(hunt.moment()).plot.sentence
    assert told.startswith("Of the 12 images in the last 2 rounds, 7 were yes.")


def test_earlier_round_shows_what_was_known_then_whatever_came_later(hunt):
    before = {after: tell_all(hunt.moment(after)) for after in range(4)}
    answers_before = dict(hunt.answers())
    for _ in range(2):
        hunt.submit()
    searching.correct_answers(
        hunt.session,
        hunt.search,
        person=hunt.person,
        values={hunt.images[0].id: "no"},
        gesture_key=None,
    )
    hunt.submit({})
    for after in range(4):
        assert tell_all(hunt.moment(after)) == before[after]
    assert hunt.moment(3).values == answers_before
    assert tell_found(hunt.moment(3)).positives != tell_found(hunt.moment()).positives
    with pytest.raises(NotFound, match="round"):
        hunt.moment(7)


def test_same_figures_on_every_opening(hunt):
    assert tell_all(hunt.moment()) == tell_all(hunt.moment())


def test_time_spent_leaves_pauses_out(hunt):
    own = select(Action).filter_by(search_id=hunt.search.id).order_by(Action.id)
    actions = hunt.session.scalars(own).all()
    start = actions[0].at
    steps = [0, 60, 90] + [4_000] * (len(actions) - 3)
    for step, action in zip(steps, actions, strict=True):
        at = start + timedelta(seconds=step)
        hunt.session.execute(update(Action).where(Action.id == action.id).values(at=at))
    hunt.session.flush()
    assert tell_found(hunt.moment()).seconds == 90
    hunt.take("estimate", 12)  # after reading the dashboard for a while
    asked = hunt.session.scalars(own.order_by(None).order_by(Action.id.desc())).first()
    assert asked.kind == "detour"
    at = start + timedelta(seconds=4_200)
    hunt.session.execute(update(Action).where(Action.id == asked.id).values(at=at))
    hunt.session.flush()
    assert tell_found(hunt.moment()).seconds == 90


def test_a_search_that_found_nothing_itself_has_no_yield(session, settings):
    hunt = Hunt(session, settings)
    for _ in range(2):
        hunt.submit(dict.fromkeys(hunt.shown(), "no"))
    found = tell_found(hunt.moment())
    assert (found.positives, found.examples, found.per_hundred) == (1, 1, 0)


def test_nothing_is_reckoned_from_chances_before_the_search_itself_found_something(
    session, settings
):
    hunt = Hunt(session, settings)
    for _ in range(4):
        hunt.submit(dict.fromkeys(hunt.shown(), "no"))
    undo(session, hunt.search, person=hunt.person, gesture_key=None)
    moment = hunt.moment()
    assert sum(one.has_head for one in moment.last_showings) == 12
    assert tell_found(moment).by_chance is None
    assert tell_variety(moment).coverage is None
    assert "calibrated-sum" not in {one.name for one in tell_left(moment).statements}
    first, *rest = hunt.shown()
    hunt.submit({first: "yes"} | dict.fromkeys(rest, "no"))
    moment = hunt.moment()
    assert 0 <= tell_found(moment).by_chance.low < tell_found(moment).by_chance.high
    assert tell_variety(moment).coverage is not None
    assert "calibrated-sum" in {one.name for one in tell_left(moment).statements}


def test_gaps_are_likely_images_without_a_find_beside_them(hunt):
    looks = tell_looks(hunt.moment())
    answered = set(hunt.answers())
    assert looks.gaps
    for gap in looks.gaps:
        assert gap.anchor_image_id == gap.image_ids[0]
        assert not set(gap.image_ids) & answered
        assert gap.count >= 2
    assert [gap.expected for gap in looks.gaps] == sorted(
        (gap.expected for gap in looks.gaps), reverse=True
    )
    second_look = {image.id for image in hunt.images[20:34]}
    assert any(set(gap.image_ids) <= second_look for gap in looks.gaps)


def test_map_says_where_it_holds_the_likeliest_alone(hunt, monkeypatch):
    likely = len(hunt.moment().list_likely(600))
    assert f"{likely} likely without an answer" in tell_looks(hunt.moment()).map.sentence
    monkeypatch.setattr("app.dashboards.variety.MOST_ON_MAP", 5)
    assert "5 of the likeliest without an answer" in tell_looks(hunt.moment()).map.sentence


def test_modes_count_every_find_once(hunt):
    modes = tell_variety(hunt.moment()).modes
    assert sum(mode.confirmed for mode in modes) == tell_found(hunt.moment()).positives
    for mode in modes:
        if mode.confirmed:
            assert hunt.answers()[mode.image_id] == "yes"


def test_sample_speaks_once_a_round_of_it_was_submitted(hunt):
    assert "score-sample" not in [one.name for one in tell_left(hunt.moment()).statements]
    hunt.take("estimate", 60)
    hunt.submit()
    early = {one.name: one for one in tell_left(hunt.moment()).statements}["score-sample"]
    assert early.cost == 6
    for _ in range(9):
        hunt.submit()
    left = tell_left(hunt.moment())
    late = {one.name: one for one in left.statements}["score-sample"]
    true_left = len(hunt.targets - set(hunt.answers()))
    assert late.cost == 60
    assert late.low <= true_left <= late.high
    assert late.high - late.low < early.high - early.low
    (taken,) = left.taken
    assert (taken.size, taken.shown, taken.is_running) == (60, 60, False)


def test_a_sample_is_trusted_most_and_one_at_random_before_one_by_score(hunt):
    def verdict(after=None):
        told = tell_left(hunt.moment(after)).verdict
        return told.statement.name, told.by_lot

    assert verdict() == ("calibrated-sum", False)
    hunt.take("estimate", 12)
    hunt.submit()
    assert verdict() == ("calibrated-sum", False)  # half of the sample was shown
    hunt.submit()
    assert verdict() == ("score-sample", True)
    hunt.take("absence", 12)
    hunt.submit()
    assert verdict() == ("score-sample", True)
    hunt.submit()
    assert verdict() == ("random-sample", True)
    assert verdict(3) == ("calibrated-sum", False)


@pytest.mark.parametrize(("kind", "name"), [("estimate", "score"), ("absence", "random")])
def test_a_sample_speaks_of_what_a_later_filter_keeps(hunt, kind, name):
    kept = {image.id for image in hunt.images[::3]}
    for image in hunt.images:
        image.path = f"{'A' if image.id in kept else 'B'}/{image.path}"
    hunt.take(kind, 60)
    for _ in range(10):
        hunt.submit()
    before = {one.name: one for one in tell_left(hunt.moment()).statements}[f"{name}-sample"]
    chosen = read_filter(
        hunt.session, hunt.search.collection_id, [("deployment", "A")], person=hunt.person
    )
    filter_search(hunt.session, hunt.search, chosen)
    hunt.submit()
    hunt.submit()
    told = tell_left(hunt.moment())
    one = told.verdict.statement
    assert one.name == f"{name}-sample" and 0 < one.cost < before.cost
    answers = hunt.answers()
    left = len((hunt.targets & kept) - set(answers))
    assert one.low <= left <= one.high <= len(kept - set(answers))
    assert "that the sample could not draw" not in one.assumption
    assert told.verdict.found == sum(answers.get(i) == "yes" for i in kept)
    found = len(hunt.targets & kept & set(answers) - {hunt.images[0].id})
    by_chance = tell_found(hunt.moment()).by_chance
    total = len(kept) - 1  # without the example
    assert by_chance.low >= 100 * found / total
    assert by_chance.value <= 100 * len(kept & hunt.targets) / total + 5
    # Widened again, it speaks of all.
    filter_search(hunt.session, hunt.search, Filter())
    hunt.submit()
    again = {one.name: one for one in tell_left(hunt.moment()).statements}[f"{name}-sample"]
    assert again.cost == before.cost


def test_a_verdict_says_what_share_was_found_by_the_same_numbers(hunt):
    told = tell_left(hunt.moment()).verdict
    one = told.statement
    assert told.found == sum(value == "yes" for value in hunt.answers().values())
    assert told.share == pytest.approx(told.found / (told.found + one.value))
    assert told.share_low == pytest.approx(told.found / (told.found + one.high))
    assert told.share_high == pytest.approx(told.found / (told.found + one.low))
    assert told.share_low < told.share < told.share_high


def test_nothing_is_judged_without_a_find():
    one = run_of_negatives(np.array([-1, -1], np.int8))
    sums = replace(one, name="calibrated-sum", quantity="left", value=2.0, low=0.0, high=9.0)
    assert judge_left([one, sums], 0) is None
    assert judge_left([one], 3) is None
    assert judge_left([one, sums], 3).share == pytest.approx(0.6)


def test_answers_of_a_sample_are_kept_out_of_the_run_of_noes(hunt):
    before = {one.name: one for one in tell_left(hunt.moment()).statements}["run-of-negatives"]
    hunt.take("absence", 30)
    for _ in range(5):
        hunt.submit()
    left = {one.name: one for one in tell_left(hunt.moment()).statements}
    assert left["run-of-negatives"].title == before.title
    assert left["random-sample"].kind == "certificate"
    assert left["random-sample"].cost == 30
    assert left["random-sample"].high >= len(hunt.targets - set(hunt.answers()))


def grow(hunt, settings, count):
    """Add images to the collection and prepare it anew, in another order."""
    vectors = hunt.moment().index.vectors
    more = make_images(hunt.session, hunt.search.collection, count, first=len(hunt.images))
    more_vectors = np.random.default_rng(5).normal(size=(count, 16))
    more_vectors /= np.linalg.norm(more_vectors, axis=1, keepdims=True)
    order = np.random.default_rng(0).permutation(len(vectors) + count)
    images = [(hunt.images + more)[place] for place in order]
    grown = np.concatenate([vectors, more_vectors])[order].astype(np.float32)
    make_index(hunt.session, settings, images, grown)


def certificate(hunt):
    return {one.name: one for one in tell_left(hunt.moment()).statements}["random-sample"]


def test_sample_still_counts_when_the_collection_grew(hunt, settings):
    hunt.take("absence", 30)
    for _ in range(5):
        hunt.submit()
    before = certificate(hunt)
    grow(hunt, settings, 0)
    hunt.submit()
    hunt.submit()
    after = certificate(hunt)
    assert (after.title, after.cost, after.assumption) == (
        before.title,
        before.cost,
        before.assumption,
    )
    assert after.high <= before.high


def test_images_that_joined_after_the_sample_may_all_be_left(hunt, settings):
    set_goal = {"session": hunt.session, "search": hunt.search, "person": hunt.person}
    choose_goal(**set_goal, aim="recall", amount=0.9, confidence=0.95, rule="random-sample")
    for _ in range(6):
        hunt.submit()
    hunt.take("absence", 240)
    for _ in range(40):
        hunt.submit()
    before = certificate(hunt)
    assert tell_stopping(hunt.moment()).advice[0].advice.stop is True
    grow(hunt, settings, 1_000)
    hunt.submit()
    after = certificate(hunt)
    assert before.high < 5
    assert after.high > 900 + before.high
    assert "joined later" in after.assumption
    advice = tell_stopping(hunt.moment()).advice[0].advice
    assert (advice.met, advice.stop) == (False, False)
    assert advice.cost > 500  # the price of a new sample
    assert "drawn at random" in advice.missing


def test_image_that_lost_its_answer_may_be_left(hunt):
    cleared = list(hunt.answers())[:3]
    hunt.take("absence", 30)
    for _ in range(5):
        hunt.submit()
    before = certificate(hunt)
    searching.correct_answers(
        hunt.session,
        hunt.search,
        person=hunt.person,
        values=dict.fromkeys(cleared),
        gesture_key=None,
    )
    assert certificate(hunt).high == before.high + 3


def test_goal_is_on_record_and_every_rule_for_it_has_a_say(hunt):
    assert tell_stopping(hunt.moment()).chosen is None
    set_goal = {"session": hunt.session, "search": hunt.search, "person": hunt.person}
    choose_goal(**set_goal, aim="positives", amount=5, confidence=0.95, rule="enough-positives")
    stopping = tell_stopping(hunt.moment())
    assert stopping.goal_sentence == "5 images for a training set"
    assert stopping.advice[0].advice.stop is True
    choose_goal(**set_goal, aim="recall", amount=0.9, confidence=0.95, rule="random-sample")
    choose_goal(**set_goal, aim="recall", amount=0.9, confidence=0.95, rule="random-sample")
    stopping = tell_stopping(hunt.moment())
    assert stopping.chosen_after == 3
    assert (stopping.advice[0].name, stopping.goals_before) == ("random-sample", 1)
    assert stopping.advice[0].advice.stop is False
    assert stopping.advice[0].advice.missing
    assert len(stopping.advice) > 5
    choose_goal(**set_goal, aim="coverage", amount=0.5, confidence=0.95, rule="enough-coverage")
    assert [one.name for one in tell_stopping(hunt.moment()).advice] == ["enough-coverage"]


def test_a_share_is_reached_of_what_a_filter_keeps_alone(hunt):
    """Finds elsewhere must not make up for what is left where one looks; a training set is one."""
    kept = {image.id for image in hunt.images[15:75]}
    for image in hunt.images:
        image.path = f"{'A' if image.id in kept else 'B'}/{image.path}"
    chosen = read_filter(
        hunt.session, hunt.search.collection_id, [("deployment", "A")], person=hunt.person
    )
    filter_search(hunt.session, hunt.search, chosen)
    hunt.submit()
    hunt.take("absence", 20)
    while hunt.moment().made.detour_id is not None:
        hunt.submit()
    answers = hunt.answers()
    found = {image_id for image_id, value in answers.items() if value == "yes"}
    standing = build_standing(hunt.moment())
    assert standing.found == len(found & kept) < len(found)
    assert (standing.image_count, standing.unanswered_count) == (60, len(kept - set(answers)))
    assert len(standing.values) < len(build_standing(hunt.moment(), everywhere=True).values)
    set_goal = {"session": hunt.session, "search": hunt.search, "person": hunt.person}
    left = len(hunt.targets & kept - found)
    share = 0.5 * (len(found & kept) / (len(found & kept) + left) + 1)
    choose_goal(**set_goal, aim="recall", amount=share, confidence=0.95, rule="random-sample")
    advice = {one.name: one.advice for one in tell_stopping(hunt.moment()).advice}
    # 29 finds in all would be so large a share with 4 left, the 14 of these images with 2.
    assert (len(found), len(found & kept), left) == (29, 14, 5)
    assert advice["random-sample"].missing.startswith("At most 2 images")
    assert not any(one.stop for one in advice.values())
    choose_goal(
        **set_goal, aim="positives", amount=len(found), confidence=0.95, rule="enough-positives"
    )
    assert tell_stopping(hunt.moment()).advice[0].advice.stop is True


@pytest.mark.parametrize(
    ("aim", "amount", "confidence", "rule", "sentence"),
    [
        ("recall", 0.9, 0.95, "enough-positives", "does not serve"),
        ("recall", 0.9, 0.95, "guess", "does not serve"),
        ("recall", 90, 0.95, "random-sample", "share must be"),
        ("recall", 0.9, 0.2, "random-sample", "How sure"),
        ("positives", 0, 0.95, "enough-positives", "number of images"),
        ("positives", float("nan"), 0.95, "enough-positives", "number of images"),
    ],
)
def test_goal_that_cannot_be_is_refused(hunt, aim, amount, confidence, rule, sentence):
    with pytest.raises(BadInput, match=sentence):
        choose_goal(
            hunt.session,
            hunt.search,
            person=hunt.person,
            aim=aim,
            amount=amount,
            confidence=confidence,
            rule=rule,
        )


def test_second_look_counts_when_it_is_done(hunt):
    hunt.take("second-look", 12)
    hunt.submit()
    assert "two-looks" not in [one.name for one in tell_left(hunt.moment()).statements]
    hunt.submit()
    left = tell_left(hunt.moment())
    assert "two-looks" in [one.name for one in left.statements]
    (taken,) = left.taken
    assert taken.positives == sum(
        row[1] for row in tell_found(hunt.moment()).plot.rows[taken.first_round - 1 :]
    )


def test_each_way_of_a_second_look_shows_what_it_brought(hunt, settings):
    """Six images of the target look like it to the other embedder alone."""
    hunt.targets |= {image.id for image in hunt.images[100:106]}
    vectors = np.random.default_rng(6).normal(size=(300, 8))
    vectors[:20] += 2
    vectors[100:106] += 2
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    make_index(
        hunt.session, settings, hunt.images, vectors.astype(np.float32), embedder="other-eyes"
    )
    assert tell_left(hunt.moment()).other_embedders == ["other-eyes"]
    hunt.take("other-embedder", 6, "other-eyes")
    first = hunt.shown()
    hunt.submit()
    hunt.take("second-look", 12)
    second = []
    for _ in range(2):
        second += hunt.shown()
        hunt.submit()
    gains = {one.title.split(":")[0]: one for one in tell_left(hunt.moment()).gains}
    expected = {"Another embedder": first, "Another opening": second[:6], "Exploration": second[6:]}
    assert {title: (one.shown, one.positives) for title, one in gains.items()} == {
        title: (6, len(hunt.targets & set(shown))) for title, shown in expected.items()
    }
    assert gains["Another embedder"].positives >= 5
    # It is no second look of the rules: their record was measured without it.
    assert len(build_standing(hunt.moment()).looks) == 1


def correct(hunt, values):
    searching.correct_answers(
        hunt.session, hunt.search, person=hunt.person, values=values, gesture_key=None
    )


def test_only_a_whole_second_look_counts(hunt):
    def is_whole():
        return build_standing(hunt.moment()).looks[-1].is_whole

    hunt.take("second-look", 12)  # too small
    hunt.submit()
    hunt.submit()
    assert not is_whole()
    hunt.take("second-look", 40)  # ended early
    hunt.submit()
    hunt.take(None, 0)
    hunt.submit()
    assert not is_whole()
    hunt.take("second-look", 40)
    open_id = hunt.shown()[0]
    hunt.submit({i: "no" for i in hunt.shown() if i != open_id})
    for _ in range(6):
        hunt.submit()
    assert not is_whole()  # one image has no answer
    correct(hunt, {open_id: "unsure"})
    assert not is_whole()
    correct(hunt, {open_id: "no"})
    assert is_whole()
    assert build_standing(hunt.moment()).looks[-1].new == 0
    correct(hunt, {open_id: None})
    assert not is_whole()
    collection_id = hunt.search.collection_id
    removing.remove_images(hunt.session, collection_id, [open_id], person=hunt.person)
    assert is_whole()  # nobody can answer for what is removed


def test_sample_answered_elsewhere_to_its_end_is_complete(hunt):
    hunt.take("absence", 12)
    detour = hunt.session.scalars(select(Detour)).one()
    plan, index = read_plan(hunt.session, hunt.search, detour, hunt.indexes)
    image_ids = index.image_ids[plan.rows].tolist()

    def asked():
        return build_standing(hunt.moment()).control.asked

    hunt.submit()
    assert asked() == 6
    correct(hunt, {image_ids[6]: "no", image_ids[11]: "no"})
    assert asked() == 6  # a beginning is a sample; it does not end where something was found
    correct(hunt, dict.fromkeys(image_ids[7:11], "no"))
    assert asked() == 12


def test_every_sample_counts_as_a_try_also_one_taken_back(hunt):
    def take_and_submit():
        hunt.take("absence", 6)
        hunt.submit()
        return build_standing(hunt.moment()).control.number

    hunt.take("estimate", 6)  # of another kind
    hunt.submit()
    assert take_and_submit() == 1
    hunt.take("absence", 6)
    undo(hunt.session, hunt.search, person=hunt.person, gesture_key=None)
    hunt.submit()
    assert take_and_submit() == 3


def test_calibration_takes_an_image_once_by_its_last_showing(hunt):
    once, moment = hunt.moment().calibration, hunt.moment()
    shown_before = [replace(one, number=1, score=one.score - 2) for one in moment.showings[-6:]]
    moment.__dict__["showings"] = shown_before + moment.showings
    assert (moment.calibration.slope, moment.calibration.shift) == (once.slope, once.shift)


def test_slip_is_offered_for_another_look(hunt):
    wrong = hunt.images[100].id
    right = next(i for i in reversed(hunt.answers()) if hunt.answers()[i] == "yes")
    searching.correct_answers(
        hunt.session,
        hunt.search,
        person=hunt.person,
        values={right: "no", wrong: "yes"},
        gesture_key=None,
    )
    offered = {one.image_id: one.answer for one in tell_head(hunt.moment()).surprises}
    assert offered[right] == "no"
    assert offered[wrong] == "yes"


def test_score_table_counts_every_image_once(hunt):
    plot = tell_head(hunt.moment()).plot
    tally = Counter(hunt.answers().values())
    assert [sum(row[column] for row in plot.rows) for column in (2, 3, 4)] == [
        tally["yes"],
        tally["no"],
        300 - len(hunt.answers()),
    ]


def test_calibration_compares_what_was_said_before_each_answer(hunt):
    plot = tell_head(hunt.moment()).calibration
    said = [one for one in hunt.moment().showings if one.has_head]
    assert sum(row[4] for row in plot.rows) == len(said) == 12  # the first round had no head
    given = hunt.answers()
    assert sum(row[3] for row in plot.rows) == sum(given[one.image_id] == "yes" for one in said)
    expected = sum(1 / (1 + np.exp(-one.score)) for one in said)
    assert f"expected {expected:.0f} yes" in plot.sentence
    assert "say little" in plot.sentence


def judge(promised, yes_of_groups):
    """What is said of groups of twelve answers each."""
    chances = np.repeat(promised, 12)
    signs = np.array([[1] * yes + [-1] * (12 - yes) for yes in yes_of_groups], np.int8).ravel()
    return judge_word(sum_chances(chances, signs), group_chances(chances, signs))


def test_word_is_judged_by_all_answers_together_too():
    promised = [0.13, 0.185, 0.22, 0.28, 0.335, 0.39, 0.59]  # 26 of 84
    assert judge(promised, [0, 0, 0, 1, 3, 2, 6]) == (
        "These chances were too high: had they been right, 18 to 34 yes would have come (95 % "
        "sure). Counts and estimates elsewhere on this page go by what came, not by these promises."
    )
    assert judge(promised, [4, 4, 5, 5, 6, 6, 8]).startswith("These chances were too low: ")
    assert judge(promised, [2, 2, 3, 3, 4, 4, 7]).startswith("These chances agree ")
    assert judge(promised[:3], [2, 2, 2]).startswith("So few answers say little yet")


def test_word_is_judged_group_by_group_where_they_cancel_each_other():
    said = judge([0.3] * 3 + [0.7] * 3, [10, 10, 10, 2, 2, 2])
    assert said.startswith("These chances were too high in places and too low in others: in 6 of 6")


def test_search_without_a_round_has_little_to_say(session, settings):
    hunt = Hunt(session, settings)
    moment = hunt.moment()
    found = tell_found(moment)
    assert (found.positives, found.answered, found.forecast) == (1, 1, None)
    assert tell_variety(moment).coverage is None
    assert tell_looks(moment).gaps == []
    assert tell_left(moment).statements == []
    assert tell_head(moment).plot is None
    assert dict(describe_report(moment).facts)["Rounds"].startswith("0,")


def test_report_names_what_a_methods_section_needs(hunt):
    hunt.take("absence", 12)
    hunt.submit()
    report = describe_report(hunt.moment())
    facts = dict(report.facts)
    assert facts["Target"] == "Heron"
    assert facts["Collection"] == "Pond, 300 images"
    assert facts["Opened with"] == "1 image of the collection"
    assert facts["Images compared by"] == "hand-made, revision 1"
    assert facts["Images chosen by"] == "Most likely first (most-positive; 3 rounds)"
    assert facts["Rounds"] == "4, of them 1 asked for on the dashboard"
    assert facts["Answers given by"] == "me (25 answers)"
    assert facts["Seed"] == "4"
    assert dict(describe_report(hunt.moment(1)).facts)["Answers given by"] == "me (7 answers)"


def test_report_counts_an_answer_once_under_who_gave_it_last(hunt):
    first, second = hunt.shown()[:2]
    for _ in range(5):
        hunt.answer(first, "no")
        undo(hunt.session, hunt.search, person=hunt.person, gesture_key=None)
    hunt.answer(second, "no")
    me, hunt.person = hunt.person, make_person(hunt.session, name="you")
    hunt.answer(second, "yes")
    facts = dict(describe_report(hunt.moment()).facts)
    assert me.name == "me"
    assert facts["Answers given by"] == "me (19 answers), you (1 answer)"
