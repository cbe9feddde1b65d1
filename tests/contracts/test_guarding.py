"""A person who is not trusted walks everything, and finds no exact place and nobody's face."""

import csv
import io
import re
import zipfile
from datetime import datetime, timedelta
from types import SimpleNamespace

import PIL.Image
import pytest
from sqlalchemy import select
from starlette.testclient import TestClient

from app.events import Rule, group_images
from app.exports.details import save_details
from app.exports.offers import FORMATS
from app.labelling import record_labels
from app.metadata import add_table
from app.pages.dashboard import PARTS, TABLES
from app.reading import thumbnail_path
from app.replays import name_images
from app.searching import correct_answers, open_search, submit_answers
from app.security import issue_sign_in_link
from app.sensitive import guard_places, hide_people
from app.tables import Action, Answer, Deployment, ImagePath
from tests.contracts.test_routes import TABLE
from tests.factories import make_collection, make_image_file, make_images, make_index, make_person
from tests.features.test_export_formats import DETAILS

# As pages, tables and cameras write them; the grid of 0.1 makes 47.9 and 12.4 of them.
LATITUDE, LONGITUDE = 47.86531, 12.43174
EXACT = re.compile(rb"47[.,]86|12[.,]43|291234[.,]5|47 ?\xc2\xb0 ?51")
# The address of the page itself, where a form leads back to it: what they typed tells them nothing.
TYPED = re.compile(rb"(south|north|west|east)(=|%3D)[\d.]+")
ASKED = {"size": "small", "file_format": "csv", "kind": "collection"}
# They belong to no collection with places, or to somebody else.
LEFT_OUT = ("/bin/", "/account/", "/uploads/", "/work/", "/reviews/", "{replay_id}", "{photo_id}")


def make_exif() -> PIL.Image.Exif:
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # it lies on its side
    exif[0x010E] = "47.86531 12.43174"
    gps = exif.get_ifd(0x8825)
    gps[1], gps[2] = "N", (47.0, 51.0, 55.116)
    gps[3], gps[4] = "E", (12.0, 25.0, 54.264)
    return exif


@pytest.fixture
def world(web, settings):  # noqa: PLR0915 - a small world
    """Ada searches in a guarded collection; Tom is trusted with it; Ann is an admin."""
    state = web.app.state
    with state.database.session() as session:
        roles = {"ada": "evaluator", "tom": "evaluator", "ann": "admin"}
        people = {name: make_person(session, name=name, role=role) for name, role in roles.items()}
        collection = make_collection(session)
        images = make_images(session, collection, 40)
        deployment = Deployment(
            collection_id=collection.id, name="A", latitude=LATITUDE, longitude=LONGITUDE
        )
        session.add(deployment)
        session.flush()
        for number, image in enumerate(images):
            file = settings.home / "originals" / f"{number}.jpg"
            image.path = f"A/{number}.jpg"
            image.file = str(make_image_file(file, number, exif=make_exif(), comment=b"47.86531"))
            image.orientation = 6
            # Number 31 is of one burst with 30, which shows a person.
            hours = timedelta(hours=number) if number != 31 else timedelta(hours=30, seconds=9)
            image.captured_at = datetime(2025, 5, 1) + hours
            image.latitude, image.longitude = LATITUDE, LONGITUDE
            image.deployment_id = deployment.id
            session.add(
                ImagePath(
                    collection_id=collection.id,
                    image_id=image.id,
                    path=image.path,
                    size_bytes=1,
                    modified_ns=1,
                )
            )
            for side in (320, 1280):
                size = (image.width, image.height)
                make_image_file(thumbnail_path(settings.home, image.sha256, *size, side), number)
        make_index(session, state.settings, images)
        record_labels(session, collection.id, {image.id: {"heron"} for image in images})
        said = "47.86531,12.43174,291234.5,47.86531"
        visits = {30: "a pair", 31: "a pair"}
        lines = "".join(f"A/{n}.jpg,{said},{n},{visits.get(n, '')}\n" for n in range(40))
        table = f"file,lat,decimalLongitude,easting,GPSLatitude,depth,visit\n{lines}".encode()
        add_table(session, collection.id, name="sites.csv", data=table, person=people["ann"])
        rule = Rule("column", column="visit")
        group_images(session, collection.id, rule, person=people["ann"], indexes=state.indexes)
        search = open_search(
            session,
            person=people["ada"],
            collection_id=collection.id,
            target_name="Heron",
            round_size=6,
            image_ids=[images[0].id],
            photo_ids=[],
            indexes=state.indexes,
            embedders=state.embedders,
            settings=state.settings,
        )
        rule = Rule("bursts", gap_s=60)
        group_images(session, collection.id, rule, person=people["ann"], indexes=state.indexes)
        search.open_to_view = True
        save_details(session, search, DETAILS)
        values = dict.fromkeys([image.id for image in images[:8]], "yes")
        values |= dict.fromkeys([image.id for image in images[8:20]], "no")
        given = {"person": people["ada"], "gesture_key": None}
        correct_answers(session, search, values=values, **given)
        submit_answers(
            session,
            search,
            round_id=search.current_round_id,
            values={},
            rest_are_no=True,
            indexes=state.indexes,
            **given,
        )
        # The hidden image is the one that was looked at for its event.
        action = session.scalars(select(Action).order_by(Action.id.desc())).first()
        for place in (30, 31):
            given_to = {"search_id": search.id, "action_id": action.id, "value": "yes"}
            along = {"with_image_id": images[30].id} if place == 31 else {}
            session.add(Answer(image_id=images[place].id, **given_to, **along))
        guard_places(session, people["ann"], collection, grid="0.1", people=[people["tom"].id])
        hide_people(session, collection.id, [images[30].id], person=people["tom"])
        ids = {
            "collection_id": collection.id,
            "search_id": search.id,
            "image_id": images[1].id,
            "deployment_id": deployment.id,
        }
        hidden_id = images[30].id
        links = {
            name: issue_sign_in_link(session, person, base_url="", settings=state.settings)
            for name, person in people.items()
        }
    clients = {}
    for name, link in links.items():
        clients[name] = TestClient(web.app, base_url=str(web.base_url))
        assert clients[name].get(link).status_code == 200
    return SimpleNamespace(web=web, ids=ids, hidden_id=hidden_id, **clients)


def list_addresses(ids):
    """Every address that is read, with whatever parts and formats it has."""
    for route in TABLE:
        method, path = route.split(" ")
        if method != "GET" or any(part in path for part in LEFT_OUT):
            continue
        names = [{}]
        if "exports/{name}" in path:
            names = [{"name": name} for name in FORMATS]
        elif "tables/{name}" in path:
            names = [{"name": name} for name in TABLES]
        elif "{part}" in path:
            names = [{"part": part} for part in PARTS]
        elif "{size}" in path:
            names = [{"size": size} for size in ("small", "large")]
        elif "{file_format}" in path:
            names = [{"file_format": kind} for kind in ("csv", "jsonl")]
        for more in names:
            words = ASKED | ids | more
            if not set(re.findall(r"{(\w+)}", path)) <= words.keys():
                continue
            yield path.format(**words)
    own, search = f"/collections/{ids['collection_id']}", f"/searches/{ids['search_id']}"
    yield f"{own}/browse?filters=true"
    # Sides as fine as can be: what is shown of them is not.
    box = "south=47.86&north=47.87&west=12.43&east=12.44"
    yield f"{own}/browse?filters=true&{box}"
    yield f"{own}/searches/new?{box}"
    yield f"{search}/dashboard?whole=1"
    yield f"{search}/report?download=1"
    yield f"/api/v1{search}/export?format=jsonl"


def unpack(answer):
    """The bytes of an answer, and of all that is packed in it."""
    yield answer.content
    if answer.content.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(answer.content)) as packed:
            for name in packed.namelist():
                yield packed.read(name)


def tells_place(answer) -> bool:
    for content in unpack(answer):
        if content.startswith(b"\xff\xd8"):
            with PIL.Image.open(io.BytesIO(content)) as picture:
                exif = picture.getexif()
                if set(exif) - {0x0112} or exif.get_ifd(0x8825) or "comment" in picture.info:
                    return True
        elif EXACT.search(TYPED.sub(b"", content)):
            return True
    return False


def walk(client, ids):
    """The addresses whose answers tell an exact place, and how many were answered."""
    told, answered = set(), 0
    for address in list_addresses(ids):
        answer = client.get(
            address, headers={"HX-Request": "true"} if "/dashboard/" in address else {}
        )
        assert answer.status_code < 500, address
        answered += answer.status_code == 200
        if tells_place(answer):
            told.add(address)
    return told, answered


@pytest.mark.slow
def test_nobody_but_trusted_people_gets_an_exact_place_from_anywhere(world):
    told, answered = walk(world.ada, world.ids)
    assert told == set()
    assert answered > 60
    # The same walk finds them wherever they are, so it is no blind one.
    search, own = (
        f"/searches/{world.ids['search_id']}",
        f"/collections/{world.ids['collection_id']}",
    )
    found, _ = walk(world.tom, world.ids)
    assert found >= {
        f"{own}/images/{world.ids['image_id']}",
        f"{own}/browse?filters=true",
        f"{own}/replays",
        f"{own}/deployments",
        f"{own}/metadata",
        f"/images/{world.ids['image_id']}/original",
        f"{search}/images/{world.ids['image_id']}",
        f"{search}/dashboard/whereabouts",
        f"{search}/dashboard/tables/places.csv",
        f"{search}/export.csv",
        f"/api/v1{search}/export",
    }
    # Ada's search is hers, though open to view: Tom exports it as it is.
    exact = {"answers.csv", "answers.jsonl", "images.csv", "images.jsonl", "pictures.zip"}
    exact |= {"camtrap-dp.zip", "darwin-core.zip"}
    exports = {f"{search}/exports/{name}" for name in FORMATS}
    assert found & exports == {f"{search}/exports/{name}" for name in exact}


def test_exports_say_how_places_were_rounded(world):
    search = f"/searches/{world.ids['search_id']}/exports"

    def read(name, file):
        answer = world.ada.get(f"{search}/{name}")
        return zipfile.ZipFile(io.BytesIO(answer.content)).read(file).decode()

    (cells,) = csv.DictReader(io.StringIO(read("darwin-core.zip", "event.csv")))
    assert (cells["decimalLatitude"], cells["decimalLongitude"]) == ("47.9", "12.4")
    assert cells["coordinatePrecision"] == "0.1"
    # Half a cell north and as much east, at the side of the cell that is nearest to the equator.
    assert 6_700 < int(cells["coordinateUncertaintyInMeters"]) < 6_710
    assert "rounded to a grid of 0.1 degrees" in cells["dataGeneralizations"]
    assert '"coordinatePrecision": 0.1' in read("camtrap-dp.zip", "datapackage.json")
    (cells,) = csv.DictReader(io.StringIO(read("camtrap-dp.zip", "deployments.csv")))
    assert cells["coordinateUncertainty"].startswith("67")
    rows = world.ada.get(f"{search}/answers.csv").text.splitlines()
    assert "coordinate_precision" in rows[0] and ",47.9,12.4,0.1," in rows[1]
    assert ",47.9,12.4,withheld,47.9," in rows[1]  # what the table said


def test_picture_without_its_place_stays_upright_and_is_not_encoded_again(world):
    address = f"/images/{world.ids['image_id']}/original"
    bare, whole = (
        PIL.Image.open(io.BytesIO(client.get(address).content)) for client in (world.ada, world.tom)
    )
    assert bare.getexif()[0x0112] == whole.getexif()[0x0112] == 6
    assert bare.tobytes() == whole.tobytes()


def test_image_of_a_person_is_seen_by_trusted_people_alone_who_ask(world):
    own, hidden = f"/collections/{world.ids['collection_id']}", world.hidden_id
    pictures = [f"/images/{hidden}/{size}" for size in ("small", "large", "original")]
    pages = [f"{own}/images/{hidden}", f"/searches/{world.ids['search_id']}/images/{hidden}"]
    pages += [f"{own}/browse?like={hidden}", f"{own}/searches/new?image={hidden}"]
    for address in [*pictures, *pages]:
        assert world.ada.get(address).status_code == 404, address
    for address in [*pictures, pages[0]]:
        assert world.tom.get(address).status_code == 200, address
    # Named in a form it is not known either, nor beside a replay's small pictures.
    search = f"/searches/{world.ids['search_id']}"
    for what, form in {
        f"{own}/tags": {"picked": hidden, "tag": "x"},
        f"{search}/card/images": {"put": f"{hidden}:yes"},
        f"{own}/images/{hidden}/remarks": {"tag": "x"},
    }.items():
        assert world.ada.post(what, data=form).status_code == 404, what
    with world.web.app.state.database.session() as session:
        assert set(name_images(session, {hidden, world.ids["image_id"]})) == {world.ids["image_id"]}
    # In no list of anybody's, and in no export.
    for client in (world.ada, world.tom):
        for address in list_addresses(world.ids):
            answer = client.get(address)
            if address == f"{own}/people":
                assert (answer.status_code, client is world.ada) in ((403, True), (200, False))
                assert (f"/images/{hidden}/small" in answer.text) == (client is not world.ada)
                continue
            for content in unpack(answer):
                assert f"/images/{hidden}/".encode() not in content, address
                assert b"A/30.jpg" not in content, address
    # Not even put back by who is not trusted; whoever hides an image may take that back.
    assert world.ada.post(f"{own}/people/back", data={"image_ids": hidden}).status_code == 403
    assert world.ada.get(pictures[0]).status_code == 404
    other = world.ids["image_id"]
    back = f"/searches/{world.ids['search_id']}"
    page = world.ada.post(f"{own}/people", data={"image_ids": other, "back": back})
    assert (
        "Take it back" in page.text and world.ada.get(f"/images/{other}/small").status_code == 200
    )
    assert world.tom.get(f"{own}/people").text.count("/small") == 2
    world.ada.post(f"{own}/people/back", data={"image_ids": other, "back": back})
    assert f"/images/{other}/small" in world.tom.get(f"{own}/browse").text
    world.tom.post(f"{own}/people/back", data={"image_ids": hidden})
    assert world.ada.get(pictures[0]).status_code == 200
