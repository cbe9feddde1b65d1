"""Pages of what is sensitive: who is trusted, which columns hold places, what detectors saw."""

import json
from datetime import datetime

import pytest
from sqlalchemy import select, update

from app.tables import AuditEvent, Collection, GivenColumn, Image, ImagePath, Job, TrustedPerson
from tests.factories import make_collection, make_images, make_index, make_person


@pytest.fixture
def pond(idle_client):
    """Signed in as admin, nobody working; four images, of which two have a date."""
    state = idle_client.app.state
    with state.database.session() as session:
        collection = make_collection(session)
        images = make_images(session, collection, 4)
        for number, image in enumerate(images):
            known = {"image_id": image.id, "path": image.path, "size_bytes": 1, "modified_ns": 1}
            session.add(ImagePath(collection_id=collection.id, **known))
            image.latitude, image.longitude = 47.86531, 12.43174
            image.captured_at = datetime(2025, 5, 1 + number) if number < 2 else None
        make_index(session, state.settings, images)
        idle_client.ada_id = make_person(session, name="Ada", role="ecologist").id
        idle_client.image_ids = [image.id for image in images]
        idle_client.paths = [image.path for image in images]
    idle_client.own = f"/collections/{collection.id}"
    return idle_client


def read(pond, query):
    with pond.app.state.database.session() as session:
        return session.scalars(query).all()


def test_dates_say_of_how_many_images_they_are(pond):
    page = pond.get(pond.own).text
    assert "1 May 2025 to 2 May 2025 (2 of them with a date)" in " ".join(page.split())


def test_columns_of_tables_are_told_that_are_guarded_or_may_have_to_be(pond):
    assert "Columns of tables" not in pond.get(f"{pond.own}/guard").text
    table = f"file,lat,Rechtswert,Tierort,depth\n{pond.paths[0]},47.8,4512345,Chiemsee,3\n"
    pond.post(f"{pond.own}/metadata", files={"table": ("pond.csv", table.encode())})
    page = " ".join(pond.get(f"{pond.own}/guard").text.split())
    assert "“lat” (rounded), “Rechtswert” (withheld)." in page and "may hold places" not in page
    with pond.app.state.database.session() as session:
        # As tables were kept before such names were known.
        session.execute(update(GivenColumn).filter_by(name="lat").values(holds_place=False))
        session.execute(update(GivenColumn).filter_by(name="Tierort").values(name="Tierart"))
    page = " ".join(pond.get(f"{pond.own}/guard").text.split())
    assert "“Rechtswert” (withheld)." in page
    assert "they may hold places:</strong> “lat”." in page
    page = pond.get(f"{pond.own}/metadata").text
    assert "may be known labels" in page and "“Tierart” is called like" in " ".join(page.split())


def test_grid_and_trusted_people_are_chosen_and_shown(pond):
    page = pond.get(f"{pond.own}/guard").text
    assert "Rounded to 0.1°, about 10 km" in page and "Ada" in page
    wrong = pond.post(f"{pond.own}/guard", data={"grid": "0.05"})
    assert wrong.status_code == 422
    pond.post(f"{pond.own}/guard", data={"grid": "0.1", "people": [pond.ada_id]})
    (collection,) = read(pond, select(Collection))
    assert collection.place_grid == 0.1
    assert read(pond, select(TrustedPerson.person_id)) == [pond.ada_id]
    assert any(
        "rounded to 0.1°" in one and "Ada" in one for one in read(pond, select(AuditEvent.sentence))
    )
    shown = pond.get(pond.own).text
    assert "exact for you" in shown
    assert "47.86531" in pond.get(f"{pond.own}/images/{pond.image_ids[0]}").text
    pond.post(f"{pond.own}/guard", data={"grid": ""})
    assert read(pond, select(Collection.place_grid)) == [None]


def test_columns_that_hold_places_are_told_and_can_be_told_otherwise(pond):
    table = f"file,siteLat,Longitude,latency,breite\n{pond.paths[0]},47.8,12.4,3,47.8\n".encode()
    pond.post(f"{pond.own}/metadata", files={"table": ("t.csv", table)})

    def places():
        query = select(GivenColumn.name).filter_by(holds_place=True)
        return set(read(pond, query))

    assert places() == {"siteLat", "Longitude"}
    pond.post(f"{pond.own}/metadata/places", data={"column": "breite", "holds_place": "yes"})
    pond.post(f"{pond.own}/metadata/places", data={"column": "siteLat", "holds_place": "no"})
    assert places() == {"Longitude", "breite"}
    # As cameras and programs write them, with words of capital letters.
    names = ["GPSLatitude", "GPSLongitude", "GPSPosition", "UTMEasting", "XCoord", "DDLat"]
    others = ["LATENCY", "ISOSpeed", "XCoordinator"]
    line = ",".join([pond.paths[0], *("1" for _ in [*names, *others])])
    table = f"file,{','.join([*names, *others])}\n{line}\n".encode()
    pond.post(f"{pond.own}/metadata", files={"table": ("u.csv", table)})
    assert places() == {"Longitude", "breite", *names}
    gone = pond.post(f"{pond.own}/metadata/places", data={"column": "depth"})
    assert gone.status_code == 404


def test_detections_are_brought_drawn_and_offered_to_an_index(pond):
    assert "drew a box around" not in pond.get(pond.own).text
    told = {
        "images": [
            {
                "file": path,
                "detections": [{"category": kind, "conf": 0.9, "bbox": [0.25, 0.5, 0.5, 0.25]}],
            }
            for path, kind in zip(pond.paths, ("1", "2"), strict=False)
        ],
        "detection_categories": {"1": "animal", "2": "person"},
    }
    file = {"table": ("md.json", json.dumps(told).encode())}
    wrong = pond.post(f"{pond.own}/metadata", files=file, data={"threshold": "much"})
    assert wrong.status_code == 422 and "no threshold" in wrong.text
    page = pond.post(f"{pond.own}/metadata", files=file, data={"threshold": "0,5"}).text
    assert "2 images have a box of at least 0.5 certainty" in page and "are hidden" in page
    assert [job.kind for job in read(pond, select(Job))] == ["update"]  # indexes follow
    shown = pond.get(f"{pond.own}/images/{pond.image_ids[0]}").text
    assert '<rect x="160.0" y="240.0" width="320.0" height="120.0">' in shown  # of 640 x 480
    assert "animal 90 %" in shown
    page = pond.get(pond.own).text
    assert 'value="hand-made@boxes"' in page
    assert f'href="{pond.own}/people">1 image</a>' in page
    hidden = read(pond, select(Image.id).where(Image.shows_people))
    assert hidden == [pond.image_ids[1]]
    # A removed image is put back by its page, a hidden one is not.
    pond.post(f"{pond.own}/removed/back", data={"image_ids": hidden})
    assert read(pond, select(Image.id).where(Image.shows_people)) == hidden
    assert "No image of this collection is removed" in pond.get(f"{pond.own}/removed").text
    with pond.app.state.database.session() as session:
        session.execute(update(Job).values(state="done"))
    pond.post(f"{pond.own}/metadata/forget", data={"column": "MegaDetector"})
    assert [job.kind for job in read(pond, select(Job))] == ["update"] * 2  # they follow again
    assert read(pond, select(GivenColumn)) == []
    assert 'class="boxes"' not in pond.get(f"{pond.own}/images/{pond.image_ids[0]}").text
