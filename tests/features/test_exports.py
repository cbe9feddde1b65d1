"""Exports: a row for every answered image, values that other programs read as they were."""

import csv
import io
import json

import pytest

from app import searching
from app.answers import list_round_image_ids, read_current_answers
from app.exports.rows import write_export
from app.indexing import LoadedEmbedders, OpenIndexes
from app.sensitive import EXACT
from app.workers import Readers
from tests.factories import make_collection, make_images, make_index, make_person


@pytest.fixture
def answered(session, settings):
    """A search with one round answered: yes, no, unsure, and one taken back."""
    person = make_person(session, name="=HYPERLINK(1)")
    collection = make_collection(session)
    images = make_images(session, collection, 40)
    images[0].path, images[0].latitude = "-cmd.jpg", -12.5
    make_index(session, settings, images)
    indexes = OpenIndexes(settings)
    search = searching.open_search(
        session,
        person=person,
        collection_id=collection.id,
        target_name="Grey heron, “Ardea”",
        round_size=6,
        image_ids=[images[0].id],
        photo_ids=[],
        indexes=indexes,
        embedders=LoadedEmbedders(settings, Readers(settings)),
        settings=settings,
    )
    shown = list_round_image_ids(session, search.current_round_id)
    values = dict(zip(shown, ["yes", "no", "unsure", "yes"], strict=False))
    for given in (values, {shown[3]: None}):
        searching.record_answers(
            session,
            search,
            person=person,
            round_id=search.current_round_id,
            values=given,
            gesture_key=None,
        )
    searching.submit_answers(
        session,
        search,
        person=person,
        round_id=search.current_round_id,
        values={},
        rest_are_no=False,
        gesture_key=None,
        indexes=indexes,
    )
    paths = {image.id: image.path for image in images}
    expected = {paths[shown[0]]: "yes", paths[shown[1]]: "no", paths[shown[2]]: "unsure"}
    return search, indexes, expected | {"-cmd.jpg": "yes"}


def test_json_lines_hold_every_answer_as_it_stands(session, answered):
    search, indexes, expected = answered
    rows = [
        json.loads(line)
        for line in write_export(session, search, indexes, file_format="jsonl", sight=EXACT)
    ]
    assert {row["path"]: row["answer"] for row in rows} == expected
    assert len(rows) == len(expected)
    (example,) = [row for row in rows if row["path"] == "-cmd.jpg"]
    assert example["latitude"] == -12.5
    assert example["answered_by"] == "=HYPERLINK(1)"
    assert example["shown_because"] is None
    others = [row for row in rows if row["path"] != "-cmd.jpg"]
    assert all((row["round"], row["shown_because"]) == (1, "opening") for row in others)
    assert all(0 < row["probability"] < 1 for row in rows)  # by the head of round 2
    assert all(row["probability_when_shown"] is None for row in rows)  # round 1 had no head


def test_csv_has_the_same_rows_and_no_formulas(session, answered):
    search, indexes, expected = answered
    text = "".join(write_export(session, search, indexes, file_format="csv", sight=EXACT))
    rows = list(csv.DictReader(io.StringIO(text)))
    assert {row["path"].lstrip("'"): row["answer"] for row in rows} == expected
    assert {row["target"] for row in rows} == {"Grey heron, “Ardea”"}
    assert {row["answered_by"] for row in rows} == {"'=HYPERLINK(1)"}
    (example,) = [row for row in rows if row["path"] == "'-cmd.jpg"]
    assert example["latitude"] == "-12.5"  # a number stays one


def test_csv_of_a_search_without_answers_is_a_header(session, answered):
    search, indexes, _ = answered
    images = read_current_answers(session, search)
    searching.correct_answers(
        session,
        search,
        person=search.owner,
        values=dict.fromkeys(images),
        gesture_key=None,
    )
    (header,) = write_export(session, search, indexes, file_format="csv", sight=EXACT)
    assert header.startswith("target,collection,path,")
    assert list(write_export(session, search, indexes, file_format="jsonl", sight=EXACT)) == []
