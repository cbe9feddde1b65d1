"""A replayed run beside the truth: it says what the dashboard of the same live search says."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from sqlalchemy import event

from app import searching
from app.dashboards.found import tell_found
from app.dashboards.moments import open_moment
from app.dashboards.stopping import tell_left
from app.dashboards.variety import tell_looks, tell_variety
from app.engine.index import read_manifest
from app.errors import NotFound
from app.evaluation import (
    TRUTH,
    ReplaySettings,
    Run,
    describe_replay,
    open_folder,
    play_run,
    write_run,
    write_truth,
)
from app.indexing import LoadedEmbedders, OpenIndexes
from app.oracle import read_oracle_of
from app.replay_dashboard import (
    Course,
    RuleCourse,
    find_course,
    find_kept_run,
    judge_rules,
    plot_course,
    tell_course,
    tell_run_moment,
    trace_run,
)
from app.store import replay_folder
from app.tables import OracleLabel, Replay
from app.workers import Readers
from tests.factories import make_collection, make_images, make_index, make_person

ROUNDS, SIZE = 6, 6
PLAN = ReplaySettings(("heron",), ("pf-ma",), rounds=ROUNDS, size=SIZE, seeds=1, holdout=0.0)


@pytest.fixture
def played(session, settings):
    """A replay that is done: 300 images, of which 34 show the target in two looks."""
    collection = make_collection(session)
    images = make_images(session, collection, 300)
    rng = np.random.default_rng(2)
    vectors = rng.normal(size=(300, 16))
    looks = 5 * rng.normal(size=(2, 16))
    vectors[:34] *= 0.5
    vectors[:20] += looks[0]
    vectors[20:34] += looks[0] + 0.8 * looks[1]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    make_index(session, settings, images, vectors.astype(np.float32))
    session.add_all(
        OracleLabel(image_id=image.id, label="heron" if n < 34 else "empty")
        for n, image in enumerate(images)
    )
    replay = Replay(
        collection_id=collection.id,
        person_id=make_person(session).id,
        settings=asdict(PLAN),
        state="done",
        run_count=1,
    )
    session.add(replay)
    session.flush()
    oracle, index_folder = read_oracle_of(session, collection, settings=settings)
    out = replay_folder(settings, replay.id)
    index = asdict(read_manifest(index_folder))
    open_folder(out, describe_replay(oracle, PLAN, index=index, server=None))
    write_truth(out, oracle, PLAN.targets)
    rows = oracle.rows_of["heron"]
    run = Run(index_folder, oracle.collection, "heron", rows, "pf-ma", 0, PLAN, oracle.groups)
    write_run(out, play_run(run))  # here: a worker process would take longer than the run
    return replay


@pytest.fixture
def kept(played, settings):
    return find_kept_run(settings, played, target=None, strategy=None, seed=None)


@pytest.fixture
def traced(session, played, kept, settings):
    return trace_run(session, played, kept, indexes=OpenIndexes(settings))


def test_it_says_what_the_dashboard_of_the_same_live_search_says(
    session, settings, played, kept, traced
):
    run, indexes = kept.run, OpenIndexes(settings)
    targets = set(traced.index.image_ids[traced.target_rows].tolist())
    person = make_person(session, name="live")
    search = searching.open_search(
        session,
        person=person,
        collection_id=played.collection_id,
        target_name="Heron",
        strategy=run.strategy,
        image_ids=run.opening,
        photo_ids=[],
        indexes=indexes,
        embedders=LoadedEmbedders(settings, Readers(settings)),
        settings=settings,
        round_size=SIZE,
        seed=run.seed,
    )
    rows = tell_course(traced).rows
    for number, shown in enumerate(run.shown, 1):
        searching.submit_answers(
            session,
            search,
            person=person,
            round_id=search.current_round_id,
            values={image_id: "yes" if image_id in targets else "no" for image_id in shown},
            rest_are_no=False,
            gesture_key=None,
            indexes=indexes,
        )
        live = open_moment(session, search, indexes, number)
        row, told = rows[number - 1], tell_run_moment(traced, number)
        covered = tell_variety(live).coverage
        if covered is None:
            assert np.isnan(row.coverage_said)
        else:
            said = (row.coverage_said, row.coverage_low, row.coverage_high)
            assert said == (covered.coverage, covered.low, covered.high)
        forecast = tell_found(live).forecast
        if number < ROUNDS:  # the replay's last round has no next one
            assert (forecast is None) == np.isnan(row.next_said)
            assert forecast is None or (row.next_said, row.next_low, row.next_high) == (
                pytest.approx(forecast.value),
                forecast.low,
                forecast.high,
            )
        statements = {
            one.title: (one.value, one.low, one.high) for one in tell_left(live).statements
        }
        compared = {one.title: (one.value, one.low, one.high) for one in told.compared}
        assert {
            name: pytest.approx(compared[name], nan_ok=True) for name in statements
        } == statements
        gaps = [(gap.image_ids, gap.count, gap.expected) for gap in tell_looks(live).gaps]
        assert [(gap.image_ids, gap.count, gap.expected) for gap in told.gaps] == gaps
        assert told.left == 34 - len(targets & {i for i, v in live.values.items() if v == "yes"})


def test_the_truth_beside_it_is_counted_from_the_labels(traced, kept):
    targets = set(traced.index.image_ids[traced.target_rows].tolist())
    course = tell_course(traced)
    for row, true in zip(course.rows, kept.rounds, strict=True):
        shown = [i for ids in kept.run.shown[: row.round] for i in ids] + kept.run.opening
        assert row.left == len(targets - set(shown))
        assert (row.recall, row.coverage) == (true.recall, true.coverage)
        if row.round < ROUNDS:
            assert row.next_came == len(targets & set(kept.run.shown[row.round]))
        else:
            assert np.isnan(row.next_came) and np.isnan(row.next_said)
    for number in range(1, ROUNDS + 1):
        told = tell_run_moment(traced, number)
        for gap in told.gaps:
            assert gap.are_target == [image_id in targets for image_id in gap.image_ids]
            assert sum(gap.are_target) <= gap.true_count <= gap.count
        assert told.left_in_gaps == sum(gap.true_count for gap in told.gaps) <= told.left
        for one in told.compared + told.tried:
            if one.verdict:
                place = "too high" if one.truth < one.low else "too low"
                assert one.verdict == ("inside" if one.low <= one.truth <= one.high else place)
    assert any(told.tried for told in [tell_run_moment(traced, ROUNDS)])


def test_a_sample_counts_its_own_finds_as_found(traced):
    told = tell_run_moment(traced, 2)
    yes_in = {one.title: int(one.note.split(" answers, ")[1].split()[0]) for one in told.tried}
    assert len(told.tried) == 3 and max(yes_in.values()) > 0
    for one in told.tried:
        assert one.truth == told.left - yes_in[one.title]


def test_a_course_is_kept_and_not_of_other_code(traced, kept):
    assert find_course(kept) is None
    course = tell_course(traced)
    again = find_course(kept)
    assert repr(again) == repr(course)
    for plot in plot_course(course, 34):
        assert [row[0] for row in plot.rows] == list(range(1, ROUNDS + 1))
    file = next((kept.folder / "courses").iterdir())
    told = json.loads(file.read_text())
    without = {name: value for name, value in told.items() if name != "version"}
    for other in (told | {"engine_sha256": "0"}, told | {"version": 0}, without):
        file.write_text(json.dumps(other))
        assert find_course(kept) is None
    file.write_text(json.dumps(told))
    assert find_course(kept) is not None


def test_a_run_of_any_number_of_images_is_asked_for_with_few_parameters(
    session, played, kept, settings
):
    counts = []

    def count(_connection, _cursor, _statement, parameters, _context, _many):
        counts.append(len(parameters))

    event.listen(session.bind, "before_cursor_execute", count)
    trace_run(session, played, kept, indexes=OpenIndexes(settings))
    event.remove(session.bind, "before_cursor_execute", count)
    assert counts and max(counts) < 10  # PostgreSQL takes at most 65,535


def test_a_rule_is_judged_by_its_moment():
    early = RuleCourse(
        "knee", "Bend", "heuristic", "90 %", True, False, 4, 40, 0, 0.5, 0.4, False, 6
    )
    right = replace(early, advised=True, round=7, reached=True)
    never = replace(early, stopped=False, round=9, reached=True)

    def grades(number):
        return [one.grade for one in judge_rules(Course([], [early, right, never]), number)]

    assert grades(3) == ["right", "right", "right"]
    assert grades(4) == ["wrong", "right", "right"]
    assert grades(6) == ["wrong", "late", "late"]
    assert grades(7) == ["wrong", "right", "late"]
    told = judge_rules(Course([], [early, right]), 8)
    assert "not to be relied on" in told[0].says and "recall 50 %" in told[0].verdict
    assert told[1].says == "may stop, since round 7"


def test_what_is_not_there_any_more_is_said(session, settings, played, kept):
    with pytest.raises(NotFound, match="no such run"):
        find_kept_run(settings, played, target="osprey", strategy=None, seed=None)
    before = trace_run(session, played, kept, indexes=OpenIndexes(settings))
    label = session.query(OracleLabel).filter_by(label="heron").first()
    session.delete(label)
    session.flush()
    after = trace_run(session, played, kept, indexes=OpenIndexes(settings))
    assert after.target_rows.tolist() == before.target_rows.tolist()  # it keeps its truth
    (kept.folder / TRUTH).unlink()  # as replays of before did not
    with pytest.raises(NotFound, match="labels of “heron” have changed"):
        trace_run(session, played, kept, indexes=OpenIndexes(settings))
    kept.manifest["index"]["vectors_sha256"] = "another"
    with pytest.raises(NotFound, match="index that this replay was played on"):
        trace_run(session, played, kept, indexes=OpenIndexes(settings))
