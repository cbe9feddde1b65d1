"""Replays: the oracle is exact or refused by name, runs repeat, figures are what they claim."""

import csv
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from typer.testing import CliRunner

from app.engine.index import open_index
from app.engine.replay import replay
from app.engine.stopping import STOP_RULES, Goal
from app.errors import BadInput, LabelsNotUsable
from app.evaluation import (
    AnotherReplay,
    PlayedRun,
    ReplaySettings,
    Run,
    StopRow,
    band_of,
    check_replay,
    choose_stops,
    choose_strategies,
    choose_targets,
    draw_opening,
    play_run,
    read_replay,
    read_stop,
    run_file,
    run_replays,
    split_pool,
)
from app.oracle import index_vectors, make_oracle, read_oracle, read_oracle_of
from app.replay_report import (
    Cell,
    _environment,
    compare_replays,
    describe_report,
    describe_stops,
    find_film,
    write_report,
)
from app.replay_summary import (
    FEWEST_TARGETS,
    Measure,
    StopSummaryRow,
    answers_to_recall,
    correct_by_holm,
    curve,
    interval,
    p_value,
    summarise,
    summarise_stops,
)
from app.tables import GivenColumn, ImagePath, OracleLabel
from tests.factories import make_collection, make_images, make_index

COUNT = 140
LABELS = ["newt"] * 12 + ["heron"] * 30 + [""] * 98
SETTINGS = ReplaySettings(
    targets=("newt", "heron"),
    strategies=("pf-ma", "random"),
    rounds=4,
    size=6,
    seeds=2,
    stops=("enough-positives:5", "enough-coverage:0.15"),
)


def name_image(row: int) -> str:
    return f"pond/IMG_{row:04}.jpg"


@pytest.fixture(scope="module")
def bench(tmp_path_factory) -> Path:
    """A folder with vectors, ids and labels as a person brings them, and the index made of them."""
    folder = tmp_path_factory.mktemp("bench")
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(COUNT, 12))
    for label in ("newt", "heron"):
        vectors[[own == label for own in LABELS]] += 2 * rng.normal(size=12)
    np.save(folder / "vectors.npy", vectors)
    write_csv(folder / "ids.csv", ["file"], [[name_image(row)] for row in range(COUNT)])
    write_csv(folder / "labels.csv", ["file", "label", "track"], label_lines())
    index_vectors(folder / "vectors.npy", folder / "ids.csv", folder / "index")
    return folder


@pytest.fixture(scope="module")
def oracle(bench):
    return read_oracle(bench / "index", bench / "labels.csv")


@pytest.fixture(scope="module")
def played(bench, oracle, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("played") / "out"
    run_replays(oracle, bench / "index", SETTINGS, out)
    return out


def label_lines() -> list[list[str]]:
    return [[name_image(row), label, str(row // 3)] for row, label in enumerate(LABELS)]


def write_csv(path: Path, header: list[str], lines: list[list[str]]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *lines])
    return path


def read_rounds(out: Path) -> list[dict[str, str]]:
    with (out / "rounds.csv").open(newline="") as file:
        return [
            {name: cell for name, cell in line.items() if not name.endswith("_ms")}
            for line in csv.DictReader(file)
        ]


def test_brought_vectors_become_unit_and_keep_their_names(bench, oracle):
    index = open_index(bench / "index", verify=True)
    given = np.load(bench / "vectors.npy")
    np.testing.assert_allclose(
        index.vectors, given / np.linalg.norm(given, axis=1, keepdims=True), atol=1e-6
    )
    assert oracle.names == [name_image(row) for row in range(COUNT)]
    assert {name: len(rows) for name, rows in oracle.rows_of.items()} == {"heron": 30, "newt": 12}


@pytest.mark.parametrize(
    ("vectors", "ids", "problem"),
    [
        (np.ones((3, 2)), [["a"], ["b"]], "2 lines for 3 vectors"),
        (np.array([[1.0, 0], [0, 0], [0, 1]]), [["a"], ["b"], ["c"]], r"Row 1 .*\(b\)"),
        (np.array([[1.0, 0], [0, 1], [np.nan, 1]]), [["a"], ["b"], ["c"]], r"Row 2 .*\(c\)"),
        (np.ones(3), [["a"]], "no vectors"),
        (np.ones((2, 2), dtype=int), [["a"], ["b"]], "floating-point"),
    ],
)
def test_vectors_that_make_no_index_are_refused_and_leave_nothing(tmp_path, vectors, ids, problem):
    np.save(tmp_path / "vectors.npy", vectors)
    write_csv(tmp_path / "ids.csv", ["file"], ids)
    with pytest.raises(BadInput, match=problem):
        index_vectors(tmp_path / "vectors.npy", tmp_path / "ids.csv", tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"vectors.npy", "ids.csv"}


@pytest.mark.parametrize("kind", ["archive", "empty", "text", "objects", "cut off"])
def test_a_file_that_is_no_array_of_numbers_is_refused_in_words(tmp_path, kind):
    file = tmp_path / "vectors.npy"
    if kind == "archive":
        with file.open("wb") as archive:
            np.savez(archive, np.eye(2))
    elif kind == "objects":
        np.save(file, np.array([{}], dtype=object), allow_pickle=True)
    else:
        np.save(file, np.eye(2))
        file.write_bytes({"empty": b"", "text": b"a,b\n1,2\n"}.get(kind, file.read_bytes()[:-1]))
    write_csv(tmp_path / "ids.csv", ["file"], [["a"], ["b"]])
    with pytest.raises(BadInput, match=r"no single array .* numpy\.save writes it"):
        index_vectors(file, tmp_path / "ids.csv", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("header", "ids", "problem"),
    [
        (["file"], [["a"], ["a"]], "image a stands twice"),
        (["file"], [["a"], [""]], "vector 2 has no file"),
        (["Image_ID", "file"], [["7", "a"], ["7", "b"]], "image 7 stands twice"),
        (["image_id"], [["0"], [str(2**63)]], f"{2**63} is too large"),
    ],
)
def test_ids_by_which_labels_would_miss_a_vector_are_refused(tmp_path, header, ids, problem):
    np.save(tmp_path / "vectors.npy", np.eye(2))
    write_csv(tmp_path / "ids.csv", header, ids)
    with pytest.raises(BadInput, match=problem):
        index_vectors(tmp_path / "vectors.npy", tmp_path / "ids.csv", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("header", [["Image_ID", "File"], ["image id", "File name"]])
def test_ids_and_labels_are_taken_however_their_columns_are_written(tmp_path, header):
    np.save(tmp_path / "vectors.npy", np.eye(2))
    write_csv(tmp_path / "ids.csv", header, [["70", "a"], ["60", "b"]])
    index = index_vectors(tmp_path / "vectors.npy", tmp_path / "ids.csv", tmp_path / "out")
    assert index.image_ids.tolist() == [70, 60]
    for column, names in zip(header, (["70", "60"], ["a", "b"]), strict=True):
        lines = [[name, label] for name, label in zip(names, ["newt", ""], strict=True)]
        labels = write_csv(tmp_path / "labels.csv", [column, "Scientific Name"], lines)
        known = read_oracle(tmp_path / "out", labels)
        assert known.rows_of["newt"].tolist() == [0]


def test_finished_index_is_never_written_over(bench):
    with pytest.raises(BadInput, match="never changed"):
        index_vectors(bench / "vectors.npy", bench / "ids.csv", bench / "index")


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        (label_lines()[:-1], "1 image without a known label: “pond/IMG_0139.jpg”"),
        ([*label_lines(), ["pond/IMG_9.jpg", "newt", ""]], "does not hold.*“pond/IMG_9.jpg”"),
    ],
)
def test_labels_that_leave_out_or_invent_an_image_are_refused_by_name(
    bench, tmp_path, lines, problem
):
    labels = write_csv(tmp_path / "labels.csv", ["file", "label", "track"], lines)
    with pytest.raises(LabelsNotUsable, match=problem):
        read_oracle(bench / "index", labels)


def test_a_group_told_in_one_of_an_images_lines_holds_and_two_are_refused(bench, tmp_path):
    lines = label_lines()
    first, second = lines[0][0], lines[1][0]
    labels = tmp_path / "labels.csv"
    write_csv(labels, ["file", "label", "track"], [*lines, [first, "wet", ""]])
    groups = read_oracle(bench / "index", labels, group="track").groups
    assert groups is not None
    assert groups[0] == groups[1] == groups[2] != groups[3]
    write_csv(labels, ["file", "label", "track"], [*lines, [second, "wet", "other"]])
    with pytest.raises(LabelsNotUsable, match=f"1 image more than one track: “{second}”"):
        read_oracle(bench / "index", labels, group="track")
    write_csv(labels, ["file", "label", "track"], [[name, own, ""] for name, own, _ in lines])
    with pytest.raises(LabelsNotUsable, match=r"column track of .* is empty for every"):
        read_oracle(bench / "index", labels, group="track")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('file,label\na.jpg,"newt\nb.jpg,\n', "line 2 a quotation mark is not closed"),
        ("file,label\n\na.jpg,newt\n\nb.jpg\n", "line 5 has 1 cell"),
        ("\n", "is empty"),
    ],
)
def test_labels_and_ids_whose_cells_are_not_certain_are_refused_by_line(
    bench, tmp_path, text, problem
):
    table = tmp_path / "table.csv"
    table.write_text(text)
    with pytest.raises(LabelsNotUsable, match=problem):
        read_oracle(bench / "index", table)
    with pytest.raises(LabelsNotUsable, match=problem):
        index_vectors(bench / "vectors.npy", table, tmp_path / "out")
    assert list(tmp_path.iterdir()) == [table]


def test_labels_by_image_id_are_the_same_oracle(bench, oracle, tmp_path):
    lines = [[str(row), label] for row, label in enumerate(LABELS)]
    labels = write_csv(tmp_path / "labels.csv", ["image_id", "label"], lines)
    assert read_oracle(bench / "index", labels).sha256 == oracle.sha256
    changed = [*lines[:-1], [str(COUNT - 1), "newt"]]
    other = write_csv(tmp_path / "other.csv", ["image_id", "label"], changed)
    assert read_oracle(bench / "index", other).sha256 != oracle.sha256


def test_collection_answers_with_its_own_labels_or_refuses(session, settings):
    collection = make_collection(session)
    images = make_images(session, collection, 5)
    make_index(session, settings, images)
    session.add_all(OracleLabel(image_id=image.id, label="newt") for image in images[:4])
    session.flush()
    with pytest.raises(LabelsNotUsable, match=f"1 image .*“{images[4].path}”"):
        read_oracle_of(session, collection, settings=settings)
    session.add(OracleLabel(image_id=images[4].id, label="heron"))
    session.flush()
    oracle, folder = read_oracle_of(session, collection, settings=settings)
    assert oracle.rows_of["newt"].tolist() == [0, 1, 2, 3]
    assert open_index(folder).image_ids.tolist() == [image.id for image in images]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"targets": ("osprey",)}, "“osprey”.*“heron”, “newt”"),
        ({"targets": ()}, "no target"),
        ({"strategies": ()}, "no strategy"),
        ({"strategies": ("pf-ma", "")}, "strategy is empty"),
        ({"strategies": ("pf-mb",)}, "“pf-mb”.*pf-ma"),
        ({"rounds": 0}, "rounds"),
        ({"seeds": 0}, "seeds"),
        ({"oracle_error": 1.5}, "oracle-error"),
        ({"holdout": 1.0}, "holdout"),
        ({"stops": ("patience",)}, "“patience”.*run-of-noes"),
        ({"stops": ("run-of-noes", "run-of-noes:0.8")}, "once"),
        ({"stops": ("run-of-noes:90",)}, "share between 0 and 1"),
        ({"stops": ("run-of-noes:most",)}, "“most” is no goal"),
        ({"stops": ("enough-positives:2.5",)}, "number of images"),
        ({"open_with": 10}, "“newt” has 12 images.*none is left"),
    ],
)
def test_bad_input_is_refused_by_name_before_any_work(bench, oracle, tmp_path, change, problem):
    with pytest.raises(BadInput, match=problem):
        run_replays(oracle, bench / "index", replace(SETTINGS, **change), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_target_of_one_image_is_refused():
    oracle = make_oracle("p", np.arange(3), list("abc"), {0: {"one"}, 1: set(), 2: set()}, {})
    with pytest.raises(BadInput, match="“one” has 1 image; a target needs at least 2"):
        check_replay(oracle, replace(SETTINGS, targets=("one",)))


def test_of_many_labels_the_nearest_are_offered_and_how_to_list_all():
    names = ["Grey heron", "Great egret", "Purple heron", "Wren", *(f"moth {n}" for n in range(20))]
    labelled = {number: {name} for number, name in enumerate(names)}
    many = make_oracle("p", np.arange(24), names, labelled, {})

    def refuse(*targets: str, oracle=many) -> str:
        with pytest.raises(BadInput) as refused:
            check_replay(oracle, replace(SETTINGS, targets=targets))
        return str(refused.value)

    gray = refuse("gray heron")
    assert "most like it: “Grey heron”" in gray and "Wren" not in gray
    assert "24 labels are known: --list-targets lists them." in gray
    assert "most like it: “Grey heron”, “Purple heron”" in refuse("Heron")
    assert "“Wren”" in refuse("wren")
    assert "like it" not in refuse("zzzz") and "24 labels" in refuse("zzzz")
    few = make_oracle("p", np.arange(20), names[:20], {n: {names[n]} for n in range(20)}, {})
    assert "“Great egret”" in refuse("gray heron", oracle=few), "so few are all named"


def test_targets_are_chosen_by_name_or_by_size(oracle):
    assert choose_targets(oracle, between=(12, 29)) == ("newt",)
    assert choose_targets(oracle) == ("heron", "newt")
    assert choose_targets(oracle, ["newt", "newt"]) == ("newt",)
    with pytest.raises(BadInput, match="12 to 30"):
        choose_targets(oracle, between=(100, 200))
    with pytest.raises(BadInput, match="not both"):
        choose_targets(oracle, ["newt"], (10, 20))


def test_all_strategies_can_be_asked_for_at_once():
    assert choose_strategies([])[0] == "pf-ma"
    assert {"pf-ma", "most-positive", "random"} <= set(choose_strategies(["all"]))


def test_pool_and_test_share_no_image_and_split_the_target(oracle):
    rows = oracle.rows_of["newt"]
    pool, test = split_pool(COUNT, rows, 0.25, 7, None)
    assert sorted([*pool, *test]) == list(range(COUNT))
    assert np.isin(rows, test).sum() == 3
    assert len(test) == 3 + (COUNT - 12) // 4
    assert split_pool(COUNT, rows, 0.0, 7, None)[0].tolist() == list(range(COUNT))


def test_with_a_group_one_image_of_each_is_asked_and_finds_are_counted_in_events(bench):
    grouped = read_oracle(bench / "index", bench / "labels.csv", group="track")
    settings = replace(SETTINGS, stops=(), strategies=("pf-ma",), seeds=1)
    rows = grouped.rows_of["newt"]
    one = Run(bench / "index", "bench", "newt", rows, "pf-ma", 0, settings, grouped.groups)
    run = play_run(one)
    group_of = dict(zip(grouped.image_ids.tolist(), grouped.groups.tolist(), strict=True))
    for shown in run.shown:
        assert len({group_of[image_id] for image_id in shown}) == len(shown) == 6
    newts = set(grouped.image_ids[grouped.rows_of["newt"]].tolist())
    asked = {group_of[image_id] for shown in run.shown for image_id in shown}
    opened = set(run.opening)
    last = run.rows[-1]
    # An answer is for all images of the track that are not held out, and only shown ones are asked.
    found = sum(letter == "y" for text in run.values for letter in text)
    assert last.answers == 24 and last.positives > found + len(opened)
    tracks = {group_of[one] for one in newts}
    assert last.positive_events == len(tracks & asked | {group_of[one] for one in opened & newts})
    assert last.event_recall == last.positive_events / last.n_target_events
    assert last.n_target_events < last.n_target

    each = replace(settings, each_image=True)
    alone = play_run(replace(one, settings=each))
    plain = [len({group_of[one] for one in shown}) for shown in alone.shown]
    assert min(plain) < 6 and alone.rows[-1].n_target_events == last.n_target_events
    (summary, *_) = summarise([run], settings)
    assert "event_recall@4" in summary.figures
    for wrong, said in (
        (replace(settings, stops=("score-sample",)), "--each-image"),
        (each, "needs a --group"),
    ):
        oracle = grouped if wrong.stops else read_oracle(bench / "index", bench / "labels.csv")
        with pytest.raises(BadInput, match=said):
            check_replay(oracle, wrong)


def test_groups_may_come_from_a_table_of_the_collection(session, settings):
    collection = make_collection(session)
    images = make_images(session, collection, 6)
    make_index(session, settings, images)
    session.add_all(OracleLabel(image_id=image.id, label="newt") for image in images)
    session.flush()
    with pytest.raises(BadInput, match="No table here has a column “track”"):
        read_oracle_of(session, collection, settings=settings, group="track")
    session.add(GivenColumn(collection_id=collection.id, name="track", kind="text", position=0))
    session.flush()
    with pytest.raises(BadInput, match="The column “track” has no value for any image of"):
        read_oracle_of(session, collection, settings=settings, group="track")
    for image, track in zip(images, "aabb", strict=False):
        image.given = {"track": track}
    session.flush()
    oracle, _ = read_oracle_of(session, collection, settings=settings, group="track")
    assert len(set(oracle.groups.tolist())) == 4  # what no text is known of stands alone
    assert oracle.groups[0] == oracle.groups[1] != oracle.groups[2] == oracle.groups[3]


def test_two_groups_of_an_image_that_has_two_paths_are_refused_by_both(session, settings, tmp_path):
    collection = make_collection(session)
    images = make_images(session, collection, 2)
    make_index(session, settings, images)
    again = ImagePath(
        collection_id=collection.id,
        image_id=images[0].id,
        path="card/copy.jpg",
        size_bytes=1_000,
        modified_ns=0,
    )
    session.add(again)
    session.flush()
    lines = [[image.path, "newt", "a"] for image in images]
    file = write_csv(
        tmp_path / "labels.csv", ["file", "label", "track"], [*lines, [again.path, "newt", "b"]]
    )
    both = f"1 image more than one track: “{images[0].path}”, “card/copy.jpg”"
    with pytest.raises(LabelsNotUsable, match=both):
        read_oracle_of(session, collection, settings=settings, labels=file, group="track")


def test_groups_are_never_split_between_pool_and_test(bench):
    grouped = read_oracle(bench / "index", bench / "labels.csv", group="track")
    for seed in range(5):
        pool, test = split_pool(COUNT, grouped.rows_of["newt"], 0.3, seed, grouped.groups)
        assert not set(grouped.groups[pool]) & set(grouped.groups[test])
        assert len(test)
    with pytest.raises(LabelsNotUsable, match=r"no column burst.*track"):
        read_oracle(bench / "index", bench / "labels.csv", group="burst")


def test_opening_depends_on_seed_and_images_alone():
    image_ids = np.array([30, 10, 20, 40])
    first = draw_opening(image_ids, 2, seed=3)
    assert first.tolist() == draw_opening(image_ids[::-1], 2, seed=3).tolist()
    assert set(first) < set(image_ids)
    assert len({tuple(draw_opening(image_ids, 2, seed=seed)) for seed in range(20)}) > 3


@pytest.mark.parametrize(
    ("count", "band"), [(19, "tail"), (20, "middle"), (100, "middle"), (101, "head")]
)
def test_bands_are_by_class_size(count, band):
    assert band_of(count) == band


def test_rounds_are_those_of_the_engine_and_counted_right(bench, oracle, played):
    index = open_index(bench / "index")
    _, runs = read_replay(played)
    assert [(r.target, r.strategy, r.seed) for r in runs] == [
        (target, strategy, seed)
        for target in ("newt", "heron")
        for strategy in ("pf-ma", "random")
        for seed in (0, 1)
    ]
    for run in runs:
        rows = oracle.rows_of[run.target]
        pool, test = split_pool(COUNT, rows, 0.2, run.seed, None)
        again = replay(
            index,
            rows,
            opening_rows=index.rows_of(run.opening),
            strategy=run.strategy,
            rounds=4,
            size=6,
            seed=run.seed,
            pool_rows=pool,
        )
        assert run.shown == [index.image_ids[one.proposal.rows].tolist() for one in again]
        assert not {i for shown in run.shown for i in shown} & set(index.image_ids[test].tolist())
        assert len(run.opening) == 1
        is_target = set(index.image_ids[rows].tolist())
        found = set(run.opening)
        findable = len(is_target & set(index.image_ids[pool].tolist()))
        for number, (shown, values, row) in enumerate(
            zip(run.shown, run.values, run.rows, strict=True), 1
        ):
            yes = is_target & set(shown)
            assert values == "".join("y" if image in yes else "n" for image in shown)
            found |= yes
            assert (row.round, row.answers, row.yes_in_round) == (number, 6 * number, len(yes))
            assert (row.positives, row.n_target) == (len(found), findable)
            assert row.recall == pytest.approx(len(found) / findable, abs=1e-6)
            assert row.recall - 1e-6 <= row.coverage <= 1 and 0 < row.mode_coverage <= 1


def test_f1_is_of_the_head_after_the_round_on_images_held_out(bench, oracle, played):
    index = open_index(bench / "index")
    run = next(run for run in read_replay(played)[1] if run.strategy == "pf-ma")
    rows = oracle.rows_of[run.target]
    held_out = list(csv.DictReader((played / "held_out.csv").read_text().splitlines()))
    own = [one for one in held_out if (one["target"], one["seed"]) == (run.target, str(run.seed))]
    test = index.rows_of(np.array([int(one["image_id"]) for one in own]))
    assert [one["file"] for one in own] == [name_image(row) for row in test]
    assert len(own) == pytest.approx(0.2 * COUNT, abs=2)
    assert len({(one["target"], one["seed"]) for one in held_out}) == 4
    pool = np.setdiff1d(np.arange(COUNT), test)
    again = replay(
        index, rows, opening_rows=index.rows_of(run.opening), strategy="pf-ma",
        rounds=5, size=6, seed=run.seed, pool_rows=pool,
    )  # fmt: skip
    truth = np.isin(test, rows)
    for number, row in enumerate(run.rows, 1):
        head = again[number].proposal.head
        said = index.vectors[test] @ head.weights + head.bias > 0
        expected = 2 * (said & truth).sum() / (said.sum() + truth.sum())
        assert row.f1 == pytest.approx(expected, abs=1e-6)


def test_f1_is_empty_once_no_target_is_left_to_judge_by(bench, oracle, tmp_path):
    long = replace(SETTINGS, rounds=6, seeds=1, holdout=0.0)
    plan = replace(long, targets=("newt",), strategies=("most-positive",))
    (run,) = run_replays(oracle, bench / "index", plan, tmp_path / "out")
    assert run.rows[-1].recall == 1 and run.rows[0].recall < 1
    for row in run.rows:
        assert np.isnan(row.f1) == np.isnan(row.average_precision) == (row.recall == 1)
    last = read_rounds(tmp_path / "out")[-1]
    assert (last["f1"], last["average_precision"]) == ("", "")


@pytest.mark.slow
def test_workers_change_nothing_but_milliseconds(bench, oracle, played, tmp_path):
    run_replays(oracle, bench / "index", SETTINGS, tmp_path / "out", workers=2)
    assert read_rounds(tmp_path / "out") == read_rounds(played)
    for name in ("stops.csv", "held_out.csv"):
        assert (tmp_path / "out" / name).read_text() == (played / name).read_text()


@pytest.mark.slow
def test_stops_are_where_the_rounds_say(oracle, played):
    with (played / "stops.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    _, runs = read_replay(played)
    assert len(lines) == 16
    assert [line["rule"] for line in lines[:2]] == ["enough-positives", "enough-coverage"]
    for run, (counted, covered) in zip(
        runs, zip(lines[::2], lines[1::2], strict=True), strict=True
    ):
        enough = [row for row in run.rows if row.positives >= 5]
        assert counted["stopped"] == counted["reached"] == str(int(bool(enough)))
        assert counted["answers"] == str(enough[0].answers if enough else run.rows[-1].answers)
        assert counted["beyond"] == ("0.000000" if enough else "")
        assert float(counted["goal"]) == 5
        assert int(counted["n_target"]) == run.rows[0].n_target
        truly = [row.answers for row in run.rows if row.coverage >= 0.15]
        assert covered["first"] == (f"{truly[0]:.6f}" if truly else "")
        played_then = run.rows[int(covered["round"]) - 1]
        assert int(covered["answers"]) == played_then.answers + int(covered["extra"])
        assert float(covered["recall"]) >= played_then.recall - 1e-6
    assert any(int(line["extra"]) >= 20 for line in lines[1::2])  # second looks were taken


def test_stop_rules_take_the_usual_goal_or_a_given_one():
    assert read_stop("score-sample") == ("score-sample", Goal(recall=0.9))
    assert read_stop("score-sample:0.75") == ("score-sample", Goal(recall=0.75))
    assert read_stop("enough-coverage") == ("enough-coverage", Goal(coverage=0.8))
    assert read_stop("enough-positives:30") == ("enough-positives", Goal(positives=30))
    assert choose_stops(["all"]) == tuple(STOP_RULES)
    assert choose_stops(["safe", "safe"]) == ("safe",)


def test_stops_are_summed_up_over_targets(played):
    _, runs = read_replay(played)
    summary = summarise_stops(runs, SETTINGS)
    assert [(row.strategy, row.rule) for row in summary] == [
        (strategy, rule)
        for strategy in ("pf-ma", "random")
        for rule in ("enough-positives", "enough-coverage")
    ]
    one = summary[0]
    own = [r.stops[0] for r in runs if r.strategy == "pf-ma"]
    by_target = [[stop for stop in own if stop.target == name] for name in ("newt", "heron")]
    assert (one.runs, one.goal) == (4, 5)
    assert one.stopped.mean == np.mean([np.mean([s.stopped for s in part]) for part in by_target])
    answers = [np.mean([s.answers for s in part if s.stopped]) for part in by_target]
    assert one.answers.mean == pytest.approx(np.mean(answers))
    assert np.isnan([one.reached.low, one.reached.high]).all()  # of two targets


def test_finished_runs_are_kept_and_only_missing_ones_played(bench, oracle, played, tmp_path):
    out = tmp_path / "out"
    before = read_rounds(played)
    (out / "runs").mkdir(parents=True)
    for path in [played / "manifest.json", *(played / "runs").iterdir()]:
        (out / path.relative_to(played)).write_text(path.read_text())
    missing = run_file(out, "heron", "random", 1)
    missing.unlink()
    times = {path: path.stat().st_mtime_ns for path in (out / "runs").iterdir()}
    heard = []
    run_replays(
        oracle, bench / "index", SETTINGS, out, progress=lambda *counts: heard.append(counts)
    )
    assert heard == [(7, 8), (8, 8)]
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert read_rounds(out) == before
    with pytest.raises(AnotherReplay, match="rounds"):
        run_replays(oracle, bench / "index", replace(SETTINGS, rounds=3), out)
    fewer = run_replays(oracle, bench / "index", replace(SETTINGS, seeds=1), out)
    assert len(fewer) == 4


def test_what_finished_runs_were_played_with_is_named_when_it_differs(bench, tmp_path):
    out, labels = tmp_path / "out", tmp_path / "labels.csv"
    plan = replace(SETTINGS, targets=("newt",), strategies=("random",), seeds=1, rounds=1, stops=())

    def play_on(track_of, own_labels=LABELS, **change):
        lines = [[name_image(row), own_labels[row], str(track_of(row))] for row in range(COUNT)]
        write_csv(labels, ["file", "label", "track"], lines)
        grouped = read_oracle(bench / "index", labels, group="track")
        run_replays(grouped, bench / "index", replace(plan, **change), out)

    def refuse(*given, **change):
        with pytest.raises(AnotherReplay) as refused:
            play_on(*given, **change)
        return refused.value.differing

    with pytest.raises(ZeroDivisionError):  # begun, and no run is finished yet
        grouped = read_oracle(bench / "index", bench / "labels.csv", group="track")
        run_replays(grouped, bench / "index", plan, out, progress=lambda *_: 1 / 0)
    assert (out / "held_out.csv").exists()
    with pytest.raises(ZeroDivisionError):  # so it may be begun otherwise
        none = replace(plan, holdout=0)
        run_replays(grouped, bench / "index", none, out, progress=lambda *_: 1 / 0)
    assert not (out / "held_out.csv").exists()
    play_on(lambda row: row // 3, rounds=2)
    assert refuse(lambda row: row // 4, rounds=2) == ["which images are of one event"]
    assert refuse(lambda row: row // 3) == ["rounds"]
    assert refuse(lambda row: row // 3, ["newt", *LABELS[:-1]], rounds=2) == ["labels"]
    # Once one checksum was of labels, images and events: what differs in it can't be said.
    manifest = json.loads((out / "manifest.json").read_text())
    for added in ("kept_sha256", "images_sha256", "groups_sha256"):
        del manifest[added]
    (out / "manifest.json").write_text(json.dumps(manifest | {"oracle_sha256": "of all"}))
    (told,) = refuse(lambda row: row // 3, rounds=2)
    assert told == "the version of Rarefind (it was begun by an earlier one)"


def test_folder_with_something_else_is_refused(bench, oracle, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(BadInput, match="holds no replay"):
        run_replays(oracle, bench / "index", SETTINGS, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_intervals_and_p_values_are_students():
    values = np.array([0.2, 0.5, 0.45, np.nan, 0.9, 0.4])
    known = values[np.isfinite(values)]
    low, high = stats.t.interval(0.95, 4, known.mean(), stats.sem(known))
    one = interval(values)
    assert (one.mean, one.low, one.high) == pytest.approx((known.mean(), low, high))
    other = np.array([0.1, 0.3, 0.5, 0.2, 0.6, 0.1])
    expected = stats.ttest_rel(known, other[np.isfinite(values)]).pvalue
    assert p_value(values - other) == pytest.approx(expected)
    assert p_value(np.zeros(5)) == 1 and p_value(np.full(5, 0.5)) == 0


def test_ends_of_an_interval_are_figures_that_can_be():
    values = np.array([0.0, 0.0, 0.0, 0.0, 1.0])
    raw = interval(values)
    assert raw.low < 0 and raw.high < 1
    cut = interval(values, 0, 1)
    assert (cut.mean, cut.low, cut.high) == (raw.mean, 0, raw.high)
    assert interval(1 - values, 0, 1).high == 1
    assert interval(2 * values - 1, -1, 1).low == -1


@pytest.mark.parametrize("count", [0, 1, 2, 4])
def test_few_targets_have_a_mean_but_no_interval_and_no_p_value(count):
    values = np.array([1.0, 0.9, 1.1, 1.0, np.nan, np.nan][:count] + [np.nan] * 2)
    one = interval(values)
    assert np.isnan([one.low, one.high, p_value(values)]).all()
    assert np.isnan(one.mean) if count == 0 else one.mean == pytest.approx(np.nanmean(values))
    assert count < FEWEST_TARGETS == 5


def test_holm_corrects_in_steps():
    p_values = {"a": 0.01, "b": 0.04, "c": 0.03, "d": float("nan")}
    corrected = correct_by_holm(p_values)
    assert [corrected[name] for name in "abc"] == pytest.approx([0.03, 0.06, 0.06])
    assert np.isnan(corrected["d"])


def test_summary_averages_seeds_before_targets(played):
    _, runs = read_replay(played)
    row = next(r for r in summarise(runs, SETTINGS) if (r.band, r.strategy) == ("all", "random"))
    by_target = {
        target: np.mean(
            [r.rows[-1].recall for r in runs if (r.target, r.strategy) == (target, "random")]
        )
        for target in ("newt", "heron")
    }
    rival = {
        target: np.mean(
            [r.rows[-1].recall for r in runs if (r.target, r.strategy) == (target, "pf-ma")]
        )
        for target in ("newt", "heron")
    }
    figure = row.figures["recall@4"]
    assert (row.targets, row.runs) == (2, 4)
    assert figure.value.mean == pytest.approx(np.mean(list(by_target.values())))
    assert figure.difference.mean == pytest.approx(
        np.mean([by_target[name] - rival[name] for name in by_target])
    )
    assert {r.band for r in summarise(runs, SETTINGS)} == {"all", "middle", "tail"}


def make_runs(played: Path, finds: dict[str, list[float]]) -> list[PlayedRun]:
    """Runs of made targets, each at the same share in every round: by strategy, a share a target.

    0 takes no time, 1 takes some; F1 is measured for the first four targets only.
    """
    one = read_replay(played)[1][0]
    return [
        replace(
            one,
            target=f"target {n}",
            strategy=strategy,
            seed=0,
            rows=[
                replace(row, coverage=share, recall=share, f1=share if n < 4 else np.nan,
                        fit_ms=50 * share, select_ms=0.0)
                for row in one.rows
            ],
        )
        for strategy, shares in finds.items()
        for n, share in enumerate(shares)
    ]  # fmt: skip


def make_manifest(played: Path, targets: int) -> dict[str, Any]:
    manifest = read_replay(played)[0]
    changed = {"targets": [f"target {n}" for n in range(targets)], "seeds": 1, "stops": []}
    return {**manifest, "settings": {**manifest["settings"], **changed}}


def read_table(band: dict[str, Any], measures: list[Measure], strategy: str) -> dict[str, Cell]:
    cells = next(cells for row, cells in band["rows"] if row.strategy == strategy)
    return {one.name: cell for one, cell in zip(measures, cells, strict=True)}


def test_report_has_no_interval_that_cannot_be(played):
    one, none = [0.0] * 5 + [1.0], [1.0] * 5 + [0.0]
    told = describe_report(
        make_manifest(played, 6), make_runs(played, {"pf-ma": none, "random": one})
    )
    (band,) = told["bands"]
    table = read_table(band, told["measures"], "random")
    assert table["recall@4"].interval == "0.000 to 0.595"
    assert table["recall@4"].difference_interval == "\N{MINUS SIGN}1.000 to +0.190"
    assert read_table(band, told["measures"], "pf-ma")["recall@4"].interval == "0.405 to 1.000"
    assert table["ms_per_round"].interval == "0.0 to 29.8"
    assert table["ms_per_round"].difference_interval == "\N{MINUS SIGN}76.2 to +9.5"  # no share
    # F1 is of four targets: no interval, and the report says why.
    assert (table["f1@4"].mean, table["f1@4"].interval, table["f1@4"].verdict) == ("0.000", "", "")
    assert "Figures without" in band["few"] and "fewer than 5" in band["few"]


@pytest.mark.parametrize(("count", "verdict"), [(4, ""), (5, "worse")])
def test_report_of_few_targets_shows_means_and_says_why_nothing_else(played, count, verdict):
    good, bad = [0.90, 0.91, 0.92, 0.93, 0.94][:count], [0.1] * count
    manifest = make_manifest(played, count)
    runs = make_runs(played, {"pf-ma": good, "random": bad})
    told = describe_report(manifest, runs)
    (band,) = told["bands"]
    cell = read_table(band, told["measures"], "random")["recall@4"]
    assert (cell.mean, cell.verdict) == ("0.100", verdict)
    assert cell.difference.startswith("\N{MINUS SIGN}0.8")
    assert bool(cell.interval) == bool(verdict)
    assert ("not given" in cell.difference_interval) == (not verdict)
    assert ("Only 4 targets" in band["few"]) == (not verdict)
    panels = [panel for title, _, own in band["charts"] if title == "Recall" for panel in own]
    assert all(bool(panel.line.shade) == bool(verdict) and panel.line.mean for panel in panels)
    row = next(one for one in summarise(runs, ReplaySettings(**manifest["settings"])))
    assert np.isnan(row.figures["recall@4"].value.low) == (not verdict)
    both = compare_replays((manifest, runs), (manifest, runs))
    assert all(("Only 4 targets" in words) == (not verdict) for words in both["few"])
    place = next(n for n, (one, _) in enumerate(both["measures"]) if one.name == "recall@4")
    assert bool(both["figures"]["random"][place][0].interval) == bool(verdict)


def test_only_targets_that_both_played_are_counted(played):
    runs = make_runs(played, {"pf-ma": [0.8, 0.81, 0.82, 0.83, 0.84], "random": [0.1] * 5})
    runs = [run for run in runs if (run.strategy, run.target) != ("pf-ma", "target 4")]
    told = describe_report(make_manifest(played, 5), runs)
    cell = read_table(told["bands"][0], told["measures"], "random")["recall@4"]
    assert cell.interval and "not given" in cell.difference_interval and not cell.verdict


def test_stop_rules_of_few_targets_have_no_interval_and_shares_end_at_one(played):
    one = read_replay(played)[1][0]
    stops = [one.stops[0], replace(one.stops[1], stopped=True)]
    settings = replace(SETTINGS, strategies=(one.strategy,), seeds=1)

    def sum_up(count: int) -> StopSummaryRow:
        runs = [
            replace(one, target=f"target {n}", stops=[
                replace(stop, target=f"target {n}", stopped=True, answers=1 if n else 90,
                        recall=0.1 if n else 1.0) for stop in stops])
            for n in range(count)
        ]  # fmt: skip
        return summarise_stops(runs, settings)[0]

    few, enough = sum_up(4), sum_up(5)
    assert np.isnan([few.recall.low, few.answers.high]).all() and few.recall.mean > 0
    assert enough.recall.low == enough.answers.low == 0  # below without the cut
    assert 0 < enough.recall.high <= 1 < enough.answers.high


def test_run_that_falls_short_counts_its_whole_budget(played):
    run = read_replay(played)[1][0]
    rows = [
        replace(row, recall=recall)
        for row, recall in zip(run.rows, (0.1, 0.5, 0.8, 0.9), strict=True)
    ]
    assert answers_to_recall(replace(run, rows=rows), 0.8, budget=24) == 18
    assert answers_to_recall(replace(run, rows=rows[:2]), 0.8, budget=24) == 24
    assert curve(replace(run, rows=rows[:2]), "recall", 4).tolist() == [0.1, 0.5, 0.5, 0.5]


def test_runs_that_fell_short_are_a_lower_bound_wherever_the_figure_stands(played):
    """Each run keeps one recall: of five targets random reaches 80 % with one, none with none."""
    shares = {"pf-ma": [0.9] * 5, "random": [0.9] + [0.1] * 4, "most-positive": [0.1] * 5}
    manifest = make_manifest(played, 5)
    manifest["settings"]["strategies"] = list(shares)
    runs = make_runs(played, shares)

    def read(figures: list[Any], measures: list[Measure], name: str) -> Any:
        return figures[[one.name for one in measures].index(name)]

    told = describe_report(manifest, runs)
    (band,) = told["bands"]
    for name, measures, rows in (
        ("answers_to_80", told["measures"], band["rows"]),
        ("rounds_to_80", told["further_measures"], band["further_rows"]),
    ):
        cells = {row.strategy: read(own, measures, name) for row, own in rows}
        assert cells["pf-ma"].reach == "" and "≥" not in cells["pf-ma"].mean
        assert cells["random"].reach == "reached in 1 of 5 runs"
        assert cells["random"].mean.startswith("≥") and cells["random"].difference[:1] == "≥"
        assert cells["most-positive"].reach == "reached in 0 of 5 runs"
        assert cells["most-positive"].interval == ""
    both = compare_replays((manifest, runs), (manifest, runs))
    pair = read(both["figures"]["random"], [one for one, _ in both["measures"]], "answers_to_80")
    assert [(side.mean[0], side.reach) for side in pair] == 2 * [("≥", "reached in 1 of 5 runs")]
    # Who never got there is not level with who never got there either.
    runs = make_runs(played, {"pf-ma": [0.5] * 5, "random": [0.11] * 5})
    told = describe_report(make_manifest(played, 5), runs)
    cell = read_table(told["bands"][0], told["measures"], "random")["answers_to_80"]
    assert (cell.difference, cell.verdict) == ("", "")
    # And one that got there beside one that did not is at most so much.
    runs = make_runs(played, {"pf-ma": [0.5] * 5, "random": [0.9] * 5})
    told = describe_report(make_manifest(played, 5), runs)
    cell = read_table(told["bands"][0], told["measures"], "random")["answers_to_80"]
    assert cell.difference.startswith("≤") and cell.verdict == "better"


def test_stop_rules_stand_once_with_the_strategies_with_which_they_stopped(played):
    _, runs = read_replay(played)
    settings = replace(SETTINGS, stops=("enough-positives:5", "enough-coverage:0.15", "knee"))

    def stop(run: PlayedRun, rule: str, *, stopped: bool, reached: bool) -> StopRow:
        return replace(run.stops[0], rule=rule, goal=0.9, stopped=stopped, reached=reached)

    runs = [
        replace(one, stops=[
            stop(one, "enough-positives", stopped=True, reached=one.strategy == "pf-ma"),
            stop(one, "enough-coverage", stopped=one.strategy == "pf-ma", reached=True),
            stop(one, "knee", stopped=False, reached=False),
        ])
        for one in runs
    ]  # fmt: skip
    blocks = describe_stops(summarise_stops(runs, settings))
    assert [
        (block.rule, [(line.strategy, line.mostly_early) for line in block.lines], block.never_with)
        for block in blocks
    ] == [
        ("enough-positives", [("pf-ma", False), ("random", True)], []),
        ("enough-coverage", [("pf-ma", False)], ["random"]),
        ("knee", [], ["pf-ma", "random"]),
    ]


def test_further_figures_are_those_of_the_rounds(played):
    _, runs = read_replay(played)
    own = [run for run in runs if (run.target, run.strategy, run.seed) == ("heron", "pf-ma", 1)]
    settings = replace(SETTINGS, targets=("heron",), strategies=("pf-ma",), seeds=1)
    (row,) = [one for one in summarise(own, settings) if one.band == "all"]
    figures = {name: figure.value.mean for name, figure in row.figures.items()}
    lines = own[0].rows
    yes = sum(text.count("y") for text in own[0].values)
    assert figures["per_100"] == pytest.approx(100 * yes / (4 * 6))
    assert figures["precision"] == pytest.approx(yes / (4 * 6))  # all rounds are full
    for column in ("recall", "mode_coverage", "f1", "average_precision"):
        mean = sum(getattr(line, column) for line in lines) / 4
        assert figures[f"area_{column}"] == pytest.approx(mean)
    assert figures["average_precision@4"] == lines[-1].average_precision
    for level in (0.5, 0.8, 0.95):
        reached = [line for line in lines if line.recall >= level - 1e-9]
        rounds, answers = (reached[0].round, reached[0].answers) if reached else (4, 24)
        assert figures[f"rounds_to_{100 * level:.0f}"] == rounds
        assert figures[f"answers_to_{100 * level:.0f}"] == answers


def test_report_needs_nothing_but_itself(played, oracle):
    names = oracle.name_of | {0: "</script><b>0"}
    page = write_report(played, names=names, find_pictures=lambda _: {}).read_text()
    assert not re.search(r"""(src|href)=["'](?!data:)""", page)
    assert not re.search(r"url\(|@import|https?://", page)
    assert "</script><b>" not in page
    # Of so few targets it has means alone, and says so once above the table of each band.
    tables = page.split("<h2>Figures")[1:]
    for table, few in zip(
        tables, ("Only 2 targets", "Only 1 target", "Only 1 target"), strict=True
    ):
        assert table.count(few) == 1 and table.index(few) < table.index("<table")
        assert "95 % interval." not in table.split("When to stop")[0]
    assert not re.search(r'class="muted range">|<b>(better|worse)</b>|class="front-shade"', page)
    data = json.loads(page.split('id="films">')[1].split("</script>")[0])
    _, runs = read_replay(played)
    assert [run[:3] for run in data["runs"]] == [[r.target, r.strategy, r.seed] for r in runs]
    assert data["runs"][0][4] == runs[0].shown
    assert page.count("for a coverage of 15 %") == 1  # one block for all strategies
    assert page.count("“≥” marks a lower bound") == 6  # under each of two tables of three bands
    assert (played / "stop_summary.csv").read_text().count("enough-coverage,0.15,4,") == 2
    header = (played / "summary.csv").read_text().splitlines()[0].split(",")
    assert header[:3] == ["band", "strategy", "targets"]
    assert {"per_100", "answers_to_50", "rounds_to_95", "area_recall"} <= set(header)


def test_film_of_a_run_shows_what_was_answered(played):
    _, runs = read_replay(played)
    film = find_film(runs, "heron", "random", 1)
    assert (film.target, film.strategy, film.seed) == ("heron", "random", 1)
    assert [[shot.image_id for shot in shots] for shots in film.rounds] == runs[-1].shown
    assert "".join(shot.value[0] for shot in film.rounds[0]) == runs[-1].values[0]


def test_two_replays_are_compared_on_what_both_played(played):
    manifest, runs = read_replay(played)
    other = {**manifest, "settings": {**manifest["settings"], "strategies": ["random"], "seeds": 1}}
    fewer = [run for run in runs if run.strategy == "random" and run.seed == 0]
    both = compare_replays((manifest, runs), (other, fewer))
    assert both["strategies"] == ["random"]
    assert {name for name, *_ in both["other_settings"]} == {"strategies", "seeds"}


def test_two_replays_are_compared_over_the_targets_that_both_played(played):
    manifest, runs = read_replay(played)
    index = {**manifest["index"], "count": 141, "vectors_sha256": "another"}
    other = {
        **manifest,
        "settings": {**manifest["settings"], "targets": ["newt"]},
        "index": index,
    }
    both = compare_replays((manifest, runs), (other, [r for r in runs if r.target == "newt"]))
    assert both["targets"] == ("newt",)
    assert all(one == other for own in both["figures"].values() for one, other in own)
    told = {name: pair for name, *pair in both["other_settings"]}
    assert told["targets"] == ["newt, heron", "newt"]
    sha256 = manifest["index"]["vectors_sha256"][:8]
    assert told["index"] == [f"140 images ({sha256})", "141 images (another)"]
    other["settings"]["targets"] = ["owl"]  # nothing in common: each over its own
    owls = [replace(run, target="owl") for run in runs if run.target == "newt"]
    assert compare_replays((manifest, runs), (other, owls))["targets"] == ()


def test_replays_of_few_and_many_rounds_are_compared_by_all_that_both_have(played):
    manifest, runs = read_replay(played)
    longer = {**manifest, "settings": {**manifest["settings"], "rounds": 25}}  # that ended early
    same = ["Area under coverage", "Answers to 80 % recall", "Milliseconds a round"]
    for pair in ((manifest, longer), (longer, manifest)):
        both = compare_replays(*((one, runs) for one in pair))
        at_end = [f"{what} after the last round" for what in ("Coverage", "Recall", "F1")]
        assert sorted(both["headings"]) == sorted([*at_end, *same])
        for cells in both["figures"].values():
            assert len(cells) == 6
            # The runs are the same: so is what they came to.
            ended = [c for title, c in zip(both["headings"], cells, strict=True) if title in at_end]
            assert all(one.mean == other.mean for one, other in ended)
    alike = compare_replays((longer, runs), (longer, runs))["headings"]
    assert alike[:2] == ["Coverage after 5 rounds", "Coverage after 25 rounds"]


def test_a_report_and_a_comparison_say_what_was_grouped(played):
    manifest, runs = read_replay(played)
    assert "<dt>Events</dt>" not in report_of(manifest)
    grouped = manifest | {"grouped": True, "groups_sha256": "c0ffee" * 10}
    assert "one image of each is asked about" in report_of(grouped)
    each = grouped | {"settings": {**manifest["settings"], "each_image": True}}
    assert "each image is asked about" in report_of(each)
    both = compare_replays((manifest, runs), (grouped, runs))
    assert both["other_settings"] == [("events", "none", "c0ffeec0")]


def report_of(manifest: dict[str, Any]) -> str:
    """The facts at the top of a report."""
    parts = _environment().get_template("_replay_parts.html").module
    settings = ReplaySettings(**manifest["settings"])
    return str(parts.facts(manifest, settings, 8))  # type: ignore[attr-defined]


def test_command_line_replays_a_bare_index_and_refuses_by_name(bench, tmp_path):
    from app.cli import app  # brings the web and torch

    common = ["replay", "--index", str(bench / "index"), "--labels", str(bench / "labels.csv")]
    few = ["--rounds", "1", "--size", "6", "--seeds", "1", "--strategy", "random"]
    few += ["--stop", "run-of-noes"]
    out = tmp_path / "out"
    done = CliRunner().invoke(app, [*common, *few, "--target", "newt", "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert {"rounds.csv", "stops.csv", "summary.csv", "manifest.json", "report.html"} <= {
        path.name for path in out.iterdir()
    }
    wrong = CliRunner().invoke(app, [*common, "--target", "osprey", "--out", str(tmp_path / "no")])
    assert wrong.exit_code == 1
    assert "osprey" in wrong.output
    listed = CliRunner().invoke(app, [*common, "--list-targets"])
    assert listed.exit_code == 0
    assert listed.output.split() == ["images", "label", "12", "newt", "30", "heron"]
    assert CliRunner().invoke(app, common).exit_code == 2, "neither a folder nor a list"
    nothing = CliRunner().invoke(app, ["replay", "--out", str(tmp_path / "no")])
    assert nothing.exit_code == 2
