"""What MegaDetector says: columns, boxes, hidden people, and indexes that look at boxes."""

import json

import numpy as np
import PIL.Image
import pytest
from sqlalchemy import select

from app.access import check_sees_people
from app.detecting import (
    Detection,
    add_detections,
    is_detections,
    list_boxes,
    widen,
)
from app.engine.index import read_manifest
from app.errors import EmbedderMismatch, LabelsNotUsable, NotFound
from app.filtering import Filter, list_image_ids
from app.forgetting import forget_column, remove_table
from app.importing import import_images
from app.indexes import list_box_embedders, name_with_boxes
from app.indexing import LoadedEmbedders, OpenIndexes, build_index
from app.metadata import describe_metadata, get_table_called, list_columns
from app.removing import count_removed, put_back_images, remove_images
from app.sensitive import count_people_images, hide_people, show_people
from app.tables import GivenColumn, Image, Person
from app.workers import Readers
from tests.factories import make_collection, make_image_file, make_person, make_picture
from tests.stand_ins import HashEmbedder, register

LEFT = [0.0, 0.25, 0.25, 0.5]  # of a picture of 80 x 40: 20 x 20 pixels


def detect(category, confidence, bbox=LEFT):
    return {"category": category, "conf": confidence, "bbox": bbox}


def write_json(files) -> bytes:
    told = {
        "images": [
            {"file": file, "detections": found}
            if found is not None
            else {"file": file, "failure": "Failure image access", "detections": None}
            for file, found in files.items()
        ],
        "detection_categories": {"1": "animal", "2": "person", "3": "vehicle"},
        "info": {"format_version": "1.3"},
    }
    return json.dumps(told).encode()


FOUND = {
    # As a detector writes them on another machine.
    "D:\\cards\\A\\1.jpg": [detect("1", 0.4, [0.5, 0.0, 0.1, 0.1]), detect("1", 0.9)],
    "D:\\cards\\A\\2.jpg": [detect("1", 0.19)],
    "D:\\cards\\A\\3.jpg": [detect("2", 0.8), detect("3", 0.3)],
    "D:\\cards\\B\\1.jpg": None,
    "D:\\cards\\B\\9.jpg": [detect("1", 0.9)],
}


@pytest.fixture
def pond(own_database, settings, tmp_path):
    """Files A/1 to A/3 and B/1 of one name, 80 x 40 pixels; the database, and the collection."""
    for number, path in enumerate(("A/1.jpg", "A/2.jpg", "A/3.jpg", "B/1.jpg"), 1):
        make_image_file(tmp_path / "photos" / path, number, size=(80, 40), quality=95)
    with own_database.session() as session:
        collection_id = make_collection(session).id
    import_images(own_database, collection_id, tmp_path / "photos", settings=settings)
    return own_database, collection_id


def bring(pond, files, *, threshold=0.2, name="md.json"):
    database, collection_id = pond
    with database.session() as session:
        person = session.scalars(select(Person)).first() or make_person(session)
        return add_detections(
            session,
            collection_id,
            name=name,
            data=write_json(files),
            threshold=threshold,
            person=person,
        )


def by_path(session):
    return {image.path: image for image in session.scalars(select(Image))}


def test_detections_become_columns_boxes_and_hidden_people(pond):
    database, collection_id = pond
    summary = bring(pond, FOUND)
    assert (summary.rows, summary.images, summary.unmatched) == (5, 4, 1)
    assert summary.notes == [
        "2 images have a box of at least 0.2 certainty.",
        "1 on which it sees a person are hidden: only people who are trusted with such images see "
        "them.",
    ]
    with database.session() as session:
        images = by_path(session)
        assert images["A/1.jpg"].given == {"MegaDetector": "animal", "MegaDetector animal": 0.9}
        assert images["A/2.jpg"].given == {"MegaDetector": "nothing"}
        assert images["B/1.jpg"].given == {"MegaDetector": "failed"}
        assert images["A/3.jpg"].given == {
            "MegaDetector": "person",
            "MegaDetector person": 0.8,
            "MegaDetector vehicle": 0.3,
        }
        assert images["A/3.jpg"].shows_people and images["A/3.jpg"].removed_at
        (row,) = (row for _, row in describe_metadata(session, collection_id, page=1).unmatched)
        assert row.name == "D:\\cards\\B\\9.jpg"
        boxes = list_boxes(session, [image.id for image in images.values()])
        assert {len(boxes[images[path].id]) for path in ("A/1.jpg", "A/3.jpg")} == {2}
        first, second = boxes[images["A/1.jpg"].id]
        assert (first.confidence, first.x, first.width) == (0.9, 0.0, 0.25)
        assert second.confidence == 0.4
        chosen = Filter((("min.MegaDetector animal", "0.5"),))
        assert list_image_ids(session, collection_id, chosen).tolist() == [images["A/1.jpg"].id]
        # Somebody looks, and sees nobody: another run does not overrule them.
        show_people(
            session, collection_id, [images["A/3.jpg"].id], person=make_person(session, name="x")
        )
    bring(pond, FOUND, threshold=0.1)
    with database.session() as session:
        assert count_people_images(session, collection_id) == 0
        images = by_path(session)
        assert images["A/2.jpg"].given["MegaDetector"] == "animal"
        assert forget_column(
            session, collection_id, "MegaDetector", person=make_person(session, name="y")
        )
        assert list_columns(session, collection_id) == []
        assert list_boxes(session, [image.id for image in images.values()]) == {}


def test_boxes_go_with_the_file_that_drew_them_and_those_of_a_later_one_stay(pond):
    database, collection_id = pond
    bring(pond, FOUND, name="first.json")
    bring(pond, {"A/1.jpg": [detect("1", 0.7)]}, name="second.json")
    with database.session() as session:
        table = get_table_called(session, collection_id, "first.json")
        person = make_person(session, name="z")
        assert remove_table(session, collection_id, table.id, person=person)
        images = by_path(session)
        boxes = list_boxes(session, [image.id for image in images.values()])
        assert list(boxes) == [images["A/1.jpg"].id]
        assert {path: image.given for path, image in images.items() if image.given} == {
            "A/1.jpg": {"MegaDetector": "animal", "MegaDetector animal": 0.7}
        }
        assert images["A/3.jpg"].shows_people, "hidden until somebody looks"


def test_what_was_removed_before_it_was_hidden_stays_removed(pond):
    database, collection_id = pond
    with database.session() as session:
        me = make_person(session)
        viewer = make_person(session, name="x", role="ecologist")
        ids = {path: image.id for path, image in by_path(session).items()}
        remove_images(session, collection_id, [ids["A/3.jpg"], ids["B/1.jpg"]], person=viewer)
        removed_at = by_path(session)["A/3.jpg"].removed_at
    bring(pond, FOUND | {"A/1.jpg": [detect("2", 0.9)]})
    with database.session() as session:
        assert count_people_images(session, collection_id) == 2
        # Who removed it did not hide it.
        with pytest.raises(NotFound):
            check_sees_people(session, viewer, ids["A/3.jpg"])
        # Nor does anybody hide what is removed: to show it again would bring it back.
        some = [ids["B/1.jpg"], ids["A/2.jpg"]]
        assert hide_people(session, collection_id, some, person=me) == 1
        assert show_people(session, collection_id, list(ids.values()), person=me) == 3
        images = by_path(session)
        assert sorted(p for p in images if images[p].removed_at) == ["A/3.jpg", "B/1.jpg"]
        assert images["A/3.jpg"].removed_at == removed_at
        assert count_removed(session, collection_id) == 2
        put_back_images(session, collection_id, list(ids.values()), person=me)
        assert count_removed(session, collection_id) == 0


def test_detector_that_ran_over_a_whole_disk_says_nothing_of_other_folders_images(pond):
    """Every folder of the disk has a `1.jpg`, and two of them are in the collection."""
    files = {f"disk/{folder}/1.jpg": [detect("2", 0.9)] for folder in "CDEFGHIJ"}
    # One image alone has this name, and this is not it.
    files |= {"disk/C/2.jpg": [detect("2", 0.9)], "disk/B/1.jpg": [detect("1", 0.9)]}
    summary = bring(pond, files)
    assert (summary.images, summary.unmatched) == (1, 9)
    database, collection_id = pond
    with database.session() as session:
        said = {path: image.given for path, image in by_path(session).items() if image.given}
        assert said == {"B/1.jpg": {"MegaDetector": "animal", "MegaDetector animal": 0.9}}
        assert count_people_images(session, collection_id) == 0
    # Two paths end like the image's, and one of the two is meant: nobody knows which.
    summary = bring(pond, {"x/A/2.jpg": [detect("1", 0.9)], "y/A/2.jpg": [detect("2", 0.9)]})
    assert (summary.images, summary.unmatched) == (0, 2)
    # Over the images' own folder, or with less of a path than the collection has.
    summary = bring(pond, {"A/2.jpg": [], "y/A/2.jpg": [detect("2", 0.9)], "3.jpg": []})
    assert (summary.images, summary.unmatched) == (2, 1)
    with database.session() as session:
        assert by_path(session)["A/2.jpg"].given == {"MegaDetector": "nothing"}


@pytest.mark.parametrize(
    "data", [b"{}", b"[1]", b"{", b'{"images": [{"file": "a"}], "categories": []}']
)
def test_what_is_no_result_of_a_detector_says_so(session, data):
    collection = make_collection(session)
    assert is_detections("x.json", data)
    with pytest.raises(LabelsNotUsable, match="no result of MegaDetector"):
        add_detections(
            session,
            collection.id,
            name="x.json",
            data=data,
            threshold=0.2,
            person=make_person(session),
        )
    assert session.scalars(select(GivenColumn)).all() == []


def test_square_around_a_box_stays_in_the_image():
    box = Detection("animal", 1, 0.0, 0.25, 0.25, 0.5)  # 20 x 20 pixels, 24 with the margin
    assert widen(box, 80, 40) == pytest.approx((0, 0.2, 0.3, 0.8))
    tall = Detection("animal", 1, 0.9, 0.0, 0.1, 1.0)  # taller than the image allows a margin
    assert widen(tall, 80, 40) == pytest.approx((0.4, 0, 1, 1))


def test_index_of_boxes_looks_at_them_and_at_what_changed_alone(
    pond, settings, monkeypatch, tmp_path
):
    database, collection_id = pond
    model = HashEmbedder()
    register(monkeypatch, model)
    whole = build_index(database, collection_id, settings=settings, embedder="hash")
    with database.session() as session:
        assert list_box_embedders(session, collection_id, settings) == []
    with pytest.raises(Exception, match="Bring MegaDetector's JSON first"):
        name_with_boxes(database, collection_id, "hash")
    bring(pond, FOUND)
    with database.session() as session:
        assert "hash" in list_box_embedders(session, collection_id, settings)
    name = name_with_boxes(database, collection_id, "hash")
    cut = build_index(database, collection_id, settings=settings, embedder=name)
    assert (cut.embedder, cut.revision) == ("hash@boxes", "hash:1@boxes")
    manifest = read_manifest(settings.home / "indexes" / str(cut.id))
    assert (manifest.embedder, manifest.revision) == ("hash@boxes", "hash:1@boxes")
    indexes = OpenIndexes(settings)
    with database.session() as session:
        ids = {path: image.id for path, image in by_path(session).items()}
    frames, boxes = indexes.get(whole), indexes.get(cut)

    def vector(index, path):
        return index.vectors[index.rows_of([ids[path]])][0]

    with PIL.Image.open(tmp_path / "photos" / "A" / "1.jpg") as opened:
        square = opened.convert("RGB").crop((0, 8, 24, 32))
    assert np.allclose(vector(boxes, "A/1.jpg"), model.embed(model.prepare(square)))
    # No animal, too uncertain, could not be read: as whole. The hidden one is in neither.
    for path in ("A/2.jpg", "B/1.jpg"):
        assert np.allclose(vector(boxes, path), vector(frames, path))
    assert ids["A/3.jpg"] not in boxes.image_ids
    # Nothing is made again but of the image whose box is another.
    same = build_index(database, collection_id, settings=settings, embedder=name)
    assert same.id == cut.id
    bring(pond, FOUND | {"D:\\cards\\A\\2.jpg": [detect("1", 0.7, [0.5, 0.25, 0.25, 0.5])]})
    newer = build_index(database, collection_id, settings=settings, embedder=name)
    assert (newer.image_count, newer.copied_count) == (3, 2)
    moved = indexes.get(newer)
    assert not np.allclose(vector(moved, "A/2.jpg"), vector(frames, "A/2.jpg"))
    assert np.allclose(vector(moved, "A/1.jpg"), vector(boxes, "A/1.jpg"))
    # Vectors of boxes are not those of frames: what goes for one is refused for the other.
    with database.session() as session:
        newer = session.merge(newer)
        newer.revision = "hash:1"
        session.flush()
        with pytest.raises(EmbedderMismatch):
            LoadedEmbedders(settings, Readers(settings)).get(newer)
        session.rollback()


def test_box_of_an_image_on_its_side_is_of_the_upright_one(
    own_database, settings, monkeypatch, tmp_path
):
    """Detectors turn images upright before they look, and so does the part that is embedded."""
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    make_image_file(tmp_path / "photos" / "1.png", 5, size=(80, 40), file_format="PNG", exif=exif)
    with own_database.session() as session:
        collection_id = make_collection(session).id
    import_images(own_database, collection_id, tmp_path / "photos", settings=settings)
    model = HashEmbedder()
    register(monkeypatch, model)
    # 20 x 20 pixels of the upright picture, which is 40 x 80.
    bring((own_database, collection_id), {"1.png": [detect("1", 0.9, [0.25, 0.5, 0.5, 0.25])]})
    row = build_index(own_database, collection_id, settings=settings, embedder="hash@boxes")
    upright = make_picture(5, size=(80, 40)).transpose(PIL.Image.Transpose.ROTATE_270)
    index = OpenIndexes(settings).get(row)
    assert np.allclose(index.vectors[0], model.embed(model.prepare(upright.crop((8, 38, 32, 62)))))
