"""Every route as every role, as a member, as a stranger and as nobody; a route must be in TABLE.

What somebody may not see answers word for word as what does not exist.
"""

import re
from dataclasses import asdict
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from fastapi.routing import iter_route_contexts
from starlette.testclient import TestClient

from app.evaluation import ReplaySettings
from app.exports.files import export_path
from app.labelling import record_labels
from app.reading import thumbnail_path
from app.searching import open_search
from app.security import add_token, issue_sign_in_link
from app.tables import (
    CollectionPerson,
    Deployment,
    Example,
    ExportFile,
    Job,
    Photo,
    Replay,
    Review,
    ReviewImage,
    SearchMember,
    Upload,
    UploadedFile,
)
from tests.factories import make_collection, make_image_file, make_images, make_index, make_person

# Ada owns the collection's search, Ben is its member; the collection is listed for Ada, Ben, Eva
# and Vic. Sam and Vera are strangers to it. Mo added it.
ROLES = {
    "ann": "admin",
    "ada": "ecologist",
    "ben": "ecologist",
    "eva": "evaluator",
    "vic": "viewer",
    "mo": "ecologist",
    "sam": "ecologist",
    "vera": "viewer",
}
ALL = set(ROLES)
SEE = ALL - {"sam", "vera"}  # the collection
IN = {"ada", "ben"}  # the search

# Who gets in; who is told that they may not (403). All others are told that there is no such thing.
OPEN = None
EVERYBODY = (ALL, set())
ADMINS = ({"ann"}, ALL - {"ann"})
SEARCHERS = (ALL - {"vic", "vera"}, {"vic", "vera"})
COLLECTION = (SEE, set())
COLLECTION_WORK = (SEE - {"vic"}, {"vic"})
COLLECTION_ADMIN = ({"ann"}, SEE - {"ann"})
COLLECTION_MAKER = ({"ann", "mo"}, SEE - {"ann", "mo"})
REPLAYS = ({"ann", "eva"}, SEE - {"ann", "eva"})
SEARCH = (IN, set())
SEARCH_OWNER = ({"ada"}, {"ben"})

TABLE = {
    "GET /api/v1/openapi.json": OPEN,
    "HEAD /api/v1/openapi.json": OPEN,
    "GET /api/v1/health": OPEN,
    "GET /api/v1/ready": OPEN,
    "GET /metrics": ADMINS,
    "GET /sign-in": OPEN,
    "POST /sign-in": OPEN,
    "GET /password": OPEN,
    "POST /password": OPEN,
    "POST /sign-out": OPEN,
    "GET /": EVERYBODY,
    "GET /help": EVERYBODY,
    "GET /account": EVERYBODY,
    "GET /account/name": EVERYBODY,
    "POST /account/name": EVERYBODY,
    "GET /account/password": EVERYBODY,
    "POST /account/password": EVERYBODY,
    "POST /account/alone": EVERYBODY,
    "POST /account/logins/end": EVERYBODY,
    "POST /account/logins/{login_id}/end": (set(), set()),  # another's: as if there were none
    "GET /account/tokens": EVERYBODY,
    "POST /account/tokens": EVERYBODY,
    "POST /account/tokens/revoke": (set(), set()),  # another's
    "GET /bin": EVERYBODY,
    "POST /bin/{kind}/{thing_id}/restore": (set(), {"vic", "vera"}),  # nothing lies there
    "GET /work": EVERYBODY,
    "POST /work/{job_id}/stop": ({"ann", "eva"}, set()),  # Eva's own
    "POST /work/{job_id}/again": ({"ann", "eva"}, set()),
    "GET /uploads/{upload_id}": ADMINS,
    "POST /uploads/{upload_id}/finish": ADMINS,
    "POST /uploads/{upload_id}/cancel": ADMINS,
    "POST /uploads/{upload_id}/form": ADMINS,
    "GET /uploads/{upload_id}/files": ADMINS,
    "POST /uploads/{upload_id}/here": ADMINS,
    "POST /uploads/{upload_id}/labels": ADMINS,
    "POST /uploads/{upload_id}/files": ADMINS,
    "HEAD /uploads/{upload_id}/files/{file_id}": ADMINS,
    "PATCH /uploads/{upload_id}/files/{file_id}": ADMINS,
    "POST /collections/{collection_id}/uploads": ADMINS,
    "GET /people": ADMINS,
    "POST /people": ADMINS,
    "GET /people/{person_id}/name": ADMINS,
    "POST /people/{person_id}/name": ADMINS,
    "GET /people/{person_id}/role": ADMINS,
    "POST /people/{person_id}/role": ADMINS,
    "GET /people/{person_id}/reset": ADMINS,
    "POST /people/{person_id}/reset": ADMINS,
    "GET /people/{person_id}/close": ADMINS,
    "POST /people/{person_id}/close": ADMINS,
    "GET /log": ADMINS,
    "GET /overview": ADMINS,
    "GET /overview/disk": ADMINS,
    "GET /overview/rounds.csv": ADMINS,
    "GET /collections/new": ADMINS,
    "POST /collections": ADMINS,
    "GET /collections/{collection_id}": COLLECTION,
    "GET /collections/{collection_id}/progress": COLLECTION,
    "GET /collections/{collection_id}/refused": COLLECTION,
    "GET /collections/{collection_id}/indexes": COLLECTION,
    "GET /collections/{collection_id}/browse": COLLECTION,
    "GET /collections/{collection_id}/names": COLLECTION,
    "GET /collections/{collection_id}/finds": COLLECTION,
    "GET /collections/{collection_id}/finds/finds.csv": COLLECTION,
    "GET /collections/{collection_id}/deployments": COLLECTION,
    "POST /collections/{collection_id}/deployments/folders": COLLECTION_ADMIN,
    "POST /collections/{collection_id}/deployments/{deployment_id}": COLLECTION_ADMIN,
    "GET /collections/{collection_id}/events": COLLECTION,
    "POST /collections/{collection_id}/events": COLLECTION_ADMIN,
    "GET /collections/{collection_id}/metadata": COLLECTION,
    "POST /collections/{collection_id}/metadata": COLLECTION_ADMIN,
    "GET /collections/{collection_id}/metadata/removal": COLLECTION_ADMIN,
    "POST /collections/{collection_id}/metadata/remove": COLLECTION_ADMIN,
    "POST /collections/{collection_id}/metadata/forget": COLLECTION_ADMIN,
    "POST /collections/{collection_id}/metadata/places": COLLECTION_ADMIN,
    "GET /collections/{collection_id}/labels": REPLAYS,
    "POST /collections/{collection_id}/labels": COLLECTION_ADMIN,
    "GET /collections/{collection_id}/labels/{name}": REPLAYS,
    "POST /collections/{collection_id}/metadata/taken": COLLECTION_ADMIN,
    "GET /collections/{collection_id}/guard": COLLECTION_MAKER,
    "POST /collections/{collection_id}/guard": COLLECTION_MAKER,
    "GET /collections/{collection_id}/people": COLLECTION_MAKER,
    "POST /collections/{collection_id}/people": COLLECTION_WORK,
    "POST /collections/{collection_id}/people/back": COLLECTION_WORK,
    "GET /collections/{collection_id}/images/{image_id}": COLLECTION,
    "GET /collections/{collection_id}/access": COLLECTION_MAKER,
    "POST /collections/{collection_id}/access": COLLECTION_MAKER,
    "GET /collections/{collection_id}/delete": COLLECTION_MAKER,
    "POST /collections/{collection_id}/delete": COLLECTION_MAKER,
    "POST /collections/{collection_id}/archive": COLLECTION_MAKER,
    "POST /collections/{collection_id}/removal": COLLECTION_ADMIN,
    "GET /collections/{collection_id}/removed": COLLECTION,
    "POST /collections/{collection_id}/removed": COLLECTION_ADMIN,
    "POST /collections/{collection_id}/removed/back": COLLECTION_ADMIN,
    "POST /collections/{collection_id}/imports": COLLECTION_ADMIN,
    "POST /collections/{collection_id}/stop": COLLECTION_ADMIN,
    "POST /collections/{collection_id}/indexes": COLLECTION_ADMIN,
    "POST /collections/{collection_id}/indexes/combined": COLLECTION_ADMIN,
    "GET /collections/{collection_id}/replays": REPLAYS,
    "POST /collections/{collection_id}/replays": REPLAYS,
    "GET /collections/{collection_id}/replays/compare": REPLAYS,
    "GET /collections/{collection_id}/replays/{replay_id}": REPLAYS,
    "GET /collections/{collection_id}/replays/{replay_id}/run": REPLAYS,
    "GET /collections/{collection_id}/replays/{replay_id}/run/rounds.csv": REPLAYS,
    "GET /collections/{collection_id}/replays/{replay_id}/run/{part}": REPLAYS,
    "GET /collections/{collection_id}/replays/{replay_id}/progress": REPLAYS,
    "POST /collections/{collection_id}/replays/{replay_id}/stop": REPLAYS,
    "POST /collections/{collection_id}/replays/{replay_id}/resume": REPLAYS,
    "GET /collections/{collection_id}/replays/{replay_id}/{name}": REPLAYS,
    "POST /collections/{collection_id}/tray": COLLECTION_WORK,
    "POST /collections/{collection_id}/tray/remove": COLLECTION_WORK,
    "GET /collections/{collection_id}/searches/new": COLLECTION_WORK,
    "POST /collections/{collection_id}/searches": COLLECTION_WORK,
    "GET /collections/{collection_id}/searches/import": COLLECTION_WORK,
    "POST /collections/{collection_id}/searches/import": COLLECTION_WORK,
    "POST /collections/{collection_id}/images/{image_id}/remarks": COLLECTION_WORK,
    "POST /collections/{collection_id}/tags": COLLECTION_WORK,
    "POST /searches/{search_id}/remarks": SEARCH,
    "POST /exports": EVERYBODY,  # names its search in the form: test_downloads
    "GET /exports/{export_id}/file": ({"ada"}, set()),  # who had it made
    "GET /images/{image_id}/original": COLLECTION,
    "GET /images/{image_id}/{size}": COLLECTION,
    "GET /photos/{photo_id}/{size}": SEARCH,
    "GET /searches/{search_id}": SEARCH,
    "GET /searches/{search_id}/upcoming": SEARCH,
    "GET /searches/{search_id}/images/{image_id}": SEARCH,
    "GET /searches/{search_id}/events/{image_id}": SEARCH,
    "GET /searches/{search_id}/results": SEARCH,
    "GET /searches/{search_id}/history": SEARCH,
    "GET /searches/{search_id}/export.{file_format}": SEARCH,
    "GET /searches/{search_id}/exports": SEARCH,
    "POST /searches/{search_id}/exports": SEARCH,
    "GET /searches/{search_id}/exports/{name}": SEARCH,
    "GET /searches/{search_id}/dashboard": SEARCH,
    "GET /searches/{search_id}/dashboard/{part}": SEARCH,
    "GET /searches/{search_id}/dashboard/tables/{name}.csv": SEARCH,
    "GET /searches/{search_id}/report": SEARCH,
    "GET /searches/{search_id}/filter": SEARCH_OWNER,
    "POST /searches/{search_id}/filter": SEARCH_OWNER,
    "GET /searches/{search_id}/share": SEARCH,
    "POST /searches/{search_id}/answers": SEARCH,
    "POST /searches/{search_id}/submit": SEARCH,
    "POST /searches/{search_id}/undo": SEARCH,
    "POST /searches/{search_id}/redo": SEARCH,
    "POST /searches/{search_id}/here": SEARCH,
    "POST /searches/{search_id}/leave": SEARCH,
    "POST /searches/{search_id}/corrections": SEARCH,
    "POST /searches/{search_id}/detour": SEARCH,
    "POST /searches/{search_id}/goal": SEARCH,
    "GET /searches/{search_id}/card": SEARCH_OWNER,
    "POST /searches/{search_id}/card": SEARCH_OWNER,
    "POST /searches/{search_id}/card/images": SEARCH_OWNER,
    "GET /searches/{search_id}/reviews": SEARCH_OWNER,
    "POST /searches/{search_id}/reviews": SEARCH_OWNER,
    "GET /searches/{search_id}/reviews/{review_id}": SEARCH_OWNER,
    "POST /searches/{search_id}/reviews/{review_id}/withdraw": SEARCH_OWNER,
    "GET /searches/{search_id}/reviews/{review_id}/settle": SEARCH_OWNER,
    "POST /searches/{search_id}/reviews/{review_id}/settle": SEARCH_OWNER,
    "GET /reviews/{review_id}": ({"eva"}, set()),  # whom it asks
    "POST /reviews/{review_id}": ({"eva"}, set()),
    "GET /searches/{search_id}/settings": SEARCH_OWNER,
    "POST /searches/{search_id}/settings": SEARCH_OWNER,
    "POST /searches/{search_id}/members": SEARCH_OWNER,
    "POST /searches/{search_id}/members/{person_id}/remove": SEARCH,
    "POST /searches/{search_id}/view": SEARCH_OWNER,
    "GET /searches/{search_id}/delete": SEARCH_OWNER,
    "POST /searches/{search_id}/delete": SEARCH_OWNER,
    "POST /searches/{search_id}/archive": SEARCH_OWNER,
    "GET /api/v1/collections": EVERYBODY,
    "GET /api/v1/collections/{collection_id}/images": COLLECTION,
    "GET /api/v1/collections/{collection_id}/indexes": COLLECTION,
    "GET /api/v1/collections/{collection_id}/images/{image_id}/remarks": COLLECTION,
    "POST /api/v1/collections/{collection_id}/images/{image_id}/remarks": COLLECTION_WORK,
    "POST /api/v1/collections/{collection_id}/tags": COLLECTION_WORK,
    "GET /api/v1/searches/{search_id}/remarks": SEARCH,
    "POST /api/v1/searches/{search_id}/remarks": SEARCH,
    "POST /api/v1/exports": EVERYBODY,
    "GET /api/v1/exports/{export_id}": ({"ada"}, set()),
    "POST /api/v1/collections/{collection_id}/searches": COLLECTION_WORK,
    "GET /api/v1/searches": EVERYBODY,
    "GET /api/v1/searches/{search_id}": SEARCH,
    "GET /api/v1/searches/{search_id}/round": SEARCH,
    "GET /api/v1/searches/{search_id}/results": SEARCH,
    "GET /api/v1/searches/{search_id}/export": SEARCH,
    "POST /api/v1/searches/{search_id}/answers": SEARCH,
    "POST /api/v1/searches/{search_id}/submit": SEARCH,
    "POST /api/v1/searches/{search_id}/undo": SEARCH,
    "POST /api/v1/searches/{search_id}/redo": SEARCH,
    "POST /api/v1/searches/{search_id}/move": SEARCH_OWNER,
}
# Whoever may do these would change what the other requests find; other tests do them.
DONE_ELSEWHERE = {
    "POST /uploads/{upload_id}/finish",
    "POST /uploads/{upload_id}/cancel",
    "POST /uploads/{upload_id}/form",
    "POST /account/name",
    "POST /account/logins/end",
    "POST /people/{person_id}/role",
    "POST /people/{person_id}/reset",
    "POST /people/{person_id}/close",
    "POST /collections/{collection_id}/access",
    "POST /collections/{collection_id}/delete",
    "POST /collections/{collection_id}/replays",
    "POST /collections/{collection_id}/replays/{replay_id}/resume",
    "GET /collections/{collection_id}/replays/{replay_id}/{name}",
    "GET /collections/{collection_id}/replays/{replay_id}/run",
    "GET /collections/{collection_id}/replays/{replay_id}/run/rounds.csv",
    "GET /collections/{collection_id}/replays/{replay_id}/run/{part}",
    "POST /collections/{collection_id}/indexes/combined",
    "POST /collections/{collection_id}/metadata/places",
    "POST /collections/{collection_id}/metadata/forget",  # there is no column to forget
    "GET /collections/{collection_id}/metadata/removal",  # nor a table to remove
    "POST /collections/{collection_id}/metadata/remove",
    "POST /searches/{search_id}/delete",
    "POST /searches/{search_id}/reviews/{review_id}/withdraw",
    "POST /searches/{search_id}/members/{person_id}/remove",
}
NOWHERE = 987_654_321


@pytest.fixture
def world(web, settings):
    """The application with a collection, a search, a photo and a replay; `signed_in` by name."""
    state = web.app.state
    with state.database.session() as session:
        people = {name: make_person(session, name=name, role=role) for name, role in ROLES.items()}
        collection = make_collection(session, name="Secret pond")
        collection.made_by_id, collection.open_to = people["mo"].id, "listed"
        for name in ("ada", "ben", "eva", "vic"):
            session.add(CollectionPerson(collection_id=collection.id, person_id=people[name].id))
        images = make_images(session, collection, 40)
        make_index(session, state.settings, images)
        image = images[0]
        image.file = str(make_image_file(settings.home / "original.jpg", 1))
        ada, ben = people["ada"].id, people["ben"].id
        photo = Photo(person_id=ada, name="p.jpg", sha256="f" * 64, width=60, height=40)
        for picture in (image, photo):
            size = (picture.width, picture.height)
            for side in (320, 1280):
                make_image_file(thumbnail_path(settings.home, picture.sha256, *size, side), 2)
        session.add(photo)
        record_labels(session, collection.id, {image.id: {"heron"}})
        search = open_search(
            session,
            person=people["ada"],
            collection_id=collection.id,
            target_name="Secret heron",
            round_size=6,
            image_ids=[image.id],
            photo_ids=[],
            indexes=state.indexes,
            embedders=state.embedders,
            settings=state.settings,
        )
        session.add(SearchMember(search_id=search.id, person_id=ben, added_by_id=ada))
        session.flush()
        session.add(Example(search_id=search.id, photo_id=photo.id))
        deployment = Deployment(collection_id=collection.id, name="A1")
        session.add(deployment)
        replay = Replay(
            collection_id=collection.id,
            person_id=people["eva"].id,
            settings=asdict(ReplaySettings(targets=("heron",), strategies=("random",))),
            state="stopped",
            run_count=1,
        )
        session.add(replay)
        session.flush()
        job = Job(
            kind="replay",
            collection_id=collection.id,
            person_id=people["eva"].id,
            arguments={"replay_id": replay.id},
            state="done",
        )
        export = add_export(session, state.settings, search)
        session.add(job)
        file = add_upload(session, collection, people["ann"])
        review = Review(
            search_id=search.id,
            reviewer_id=people["eva"].id,
            asked_by_id=ada,
            kind="sample",
            seed=1,
        )
        session.add(review)
        session.flush()
        asked = {"review_id": review.id, "image_id": image.id, "position": 0}
        session.add(ReviewImage(**asked, first_value="yes", first_person_id=ada))
        nobody = make_person(session, name="nobody", role="admin")
        links = {
            name: issue_sign_in_link(session, person, base_url="", settings=state.settings)
            for name, person in people.items()
        }
        other_link = issue_sign_in_link(session, nobody, base_url="", settings=state.settings)
        ids = {
            "collection_id": collection.id,
            "search_id": search.id,
            "image_id": image.id,
            "photo_id": photo.id,
            "replay_id": replay.id,
            "review_id": review.id,
            "person_id": people["ben"].id,
            "job_id": job.id,
            "upload_id": file.upload_id,
            "file_id": file.id,
            "deployment_id": deployment.id,
            "export_id": export.id,
        }
        token = add_token(session, people["ada"], "look", scope="read")
    signed_in = {}
    for name, link in {**links, "nobody": other_link}.items():
        signed_in[name] = TestClient(
            web.app, base_url=str(web.base_url), raise_server_exceptions=False
        )
        assert signed_in[name].get(link).status_code == 200
    with state.database.session() as session:
        login_id = (
            session.connection()
            .exec_driver_sql(f"SELECT id FROM login_sessions WHERE person_id = {nobody.id}")
            .scalar()
        )
    ids |= {"login_id": login_id, "thing_id": collection.id}
    del signed_in["nobody"]
    return SimpleNamespace(web=web, ids=ids, signed_in=signed_in, people=people, token=token)


def add_export(session, settings, search):
    """A file that the search's owner had made."""
    export = ExportFile(search_id=search.id, person_id=search.owner_id, name="coco.json")
    export.size_bytes, export.ready_at = 2, datetime.now(UTC)
    session.add(export)
    session.flush()
    arguments = {"export_id": export.id, "search_id": search.id, "name": "coco.json"}
    session.add(
        Job(
            kind="export",
            collection_id=search.collection_id,
            person_id=search.owner_id,
            arguments=arguments | {"target": search.target_name},
            state="done",
        )
    )
    made = export_path(settings, export)
    made.parent.mkdir(parents=True)
    made.write_text("{}")
    return export


def add_upload(session, collection, person):
    """A file of an upload that goes on."""
    upload = Upload(collection_id=collection.id, person_id=person.id, state="receiving")
    session.add(upload)
    session.flush()
    file = UploadedFile(upload_id=upload.id, path="a.jpg", size_bytes=3)
    session.add(file)
    session.flush()
    return file


def list_routes(web):
    for route in iter_route_contexts(web.app.routes):
        for method in route.methods or ():
            yield f"{method} {route.path}"


def address(route, ids):
    words = {"size": "small", "kind": "collection", "file_format": "csv", "part": "left"}
    if "{replay_id}/{name}" in route:
        words["name"] = "rounds.csv"
    elif "exports" in route:
        words["name"] = "images.csv"
    elif "tables" in route:
        words["name"] = "yield"
    elif "labels" in route:
        words["name"] = "known.csv"
    method, path = route.split(" ")
    return method, re.sub(r"{(\w+)}", lambda named: str((words | ids)[named[1]]), path)


def ask(client, route, ids, **more):
    method, url = address(route, ids)
    body = {}
    if method == "POST" and url.startswith("/api/"):
        body = {"json": {"embedder": "hand-made"} if url.endswith("/move") else {}}
    elif method == "POST":
        body = {"data": {"round_id": "1", "name": "nothing", "values": ""}}
    return client.request(method, url, **body, **more, follow_redirects=False)


def test_every_route_is_in_the_table_and_every_line_has_a_route(web):
    assert set(list_routes(web)) == set(TABLE)


def test_nobody_gets_anywhere(world):
    for route, who in TABLE.items():
        if who is not OPEN:
            assert ask(world.web, route, world.ids).status_code == 401, route
            assert "Secret" not in ask(world.web, route, world.ids).text


@pytest.mark.slow
def test_everybody_gets_where_they_may_and_nowhere_else(world):
    """And whoever may not see a thing gets the same answer as for one that is not there."""
    missing = dict.fromkeys(world.ids, NOWHERE)
    wrong = []
    for route, who in TABLE.items():
        if who is OPEN:
            continue
        allowed, refused = who
        for name, client in world.signed_in.items():
            if name in allowed and route in DONE_ELSEWHERE:
                continue
            answer = ask(client, route, world.ids)
            if name in allowed:
                right = answer.status_code not in (401, 403, 404, 500)
            elif name in refused:
                right = answer.status_code == 403
            else:
                other = ask(client, route, missing)
                fragment = ask(client, route, world.ids, headers={"HX-Request": "true"})
                right = answer.status_code == fragment.status_code == 404
                right &= answer.text == other.text and "Secret" not in fragment.text
            if not right:
                wrong.append(f"{name} {route}: {answer.status_code} {answer.text[-60:]!r}")
    assert not wrong, "\n".join(wrong)


def test_number_written_in_another_way_goes_round_nothing(world):
    sam = world.signed_in["sam"]
    for written in ("+{}", "%20{}", "{}.0", "0{}", "{}_", "٣", "9" * 19):
        for kind, ending in (("collection", ""), ("collection", "/browse"), ("image", "/small")):
            number = written.format(world.ids[f"{kind}_id"])
            assert sam.get(f"/{kind}s/{number}{ending}").status_code == 404, written
            assert world.web.get(f"/{kind}s/{number}{ending}").status_code == 401, written


def test_lists_hold_only_what_may_be_seen(world):
    for name, client in world.signed_in.items():
        home = client.get("/").text
        assert ("Secret pond" in home) == (name in SEE), name
        # Eva is asked for a second opinion: she is told on what, and gets no further.
        assert ("Secret heron" in home) == (name in IN | {"eva"}), name
        assert ("/searches/" in home) == (name in IN), name
        token = client.get("/api/v1/collections").json()
        assert len(token) == (name in SEE)
        assert len(client.get("/api/v1/searches").json()) == (name in IN)
    overview = world.signed_in["ann"].get("/overview")
    assert overview.status_code == 200 and "Secret heron" not in overview.text
    assert "Secret pond" in overview.text and "1 search of other people" in overview.text


def test_search_open_to_view_is_looked_at_and_not_changed(world):
    search_id = world.ids["search_id"]
    ada = world.signed_in["ada"]
    assert ada.post(f"/searches/{search_id}/view", data={"open_to_view": "yes"}).status_code == 200
    for name, client in world.signed_in.items():
        results = client.get(f"/searches/{search_id}/results")
        assert results.status_code == (200 if name in SEE else 404), name
        photo = client.get(f"/photos/{world.ids['photo_id']}/small")
        assert photo.status_code == (200 if name in SEE else 404), name
        for route, who in TABLE.items():
            if who in (SEARCH, SEARCH_OWNER) and route.startswith("POST") and name not in IN:
                status = ask(client, route, world.ids).status_code
                assert status == (403 if name in SEE else 404), f"{name} {route}"
    assert "Find more" not in world.signed_in["vic"].get(f"/searches/{search_id}/results").text


def test_closed_collection_takes_its_searches_along(world):
    mo, ada = world.signed_in["mo"], world.signed_in["ada"]
    mo.post(f"/collections/{world.ids['collection_id']}/access", data={"open_to": "private"})
    for path in ("searches/{search_id}", "images/{image_id}/small", "collections/{collection_id}"):
        assert ada.get("/" + path.format(**world.ids)).status_code == 404
    assert mo.get(f"/collections/{world.ids['collection_id']}").status_code == 200


def test_token_does_no_more_than_its_scope(world):
    reader = {"Authorization": f"Bearer {world.token}"}
    api = f"/api/v1/searches/{world.ids['search_id']}"
    assert world.web.get(f"{api}/round", headers=reader).status_code == 200
    refused = world.web.post(f"{api}/undo", json={}, headers=reader)
    assert (refused.status_code, refused.json()["error"]) == (403, "NotAllowed")
    assert "“search”" in refused.json()["detail"]
    made = world.web.post("/account/tokens", data={"name": "x", "scope": "admin"}, headers=reader)
    assert made.status_code == 403
    with world.web.app.state.database.session() as session:
        searcher = add_token(session, world.people["ann"], "search", scope="search")
    admin_page = world.web.get("/people", headers={"Authorization": f"Bearer {searcher}"})
    assert admin_page.status_code == 403


def test_token_reads_no_link_that_sets_a_password(world):
    """Else whoever has one signs in as anybody, for good."""
    with world.web.app.state.database.session() as session:
        token = add_token(session, world.people["ann"], "all", scope="admin")
    with_token = {"Authorization": f"Bearer {token}"}
    assert world.web.get("/people", headers=with_token).status_code == 200
    for path in (f"/people/{world.people['ann'].id}/reset", "/people"):
        answer = world.web.post(path, data={"name": "Xaver"}, headers=with_token)
        assert answer.status_code == 403 and "password?token=" not in answer.text
    assert "Xaver" not in world.web.get("/people", headers=with_token).text


def test_page_that_may_only_be_looked_at_says_so_to_its_style(world):
    address = f"/searches/{world.ids['search_id']}/dashboard"
    ada, vic = world.signed_in["ada"], world.signed_in["vic"]
    ada.post(f"/searches/{world.ids['search_id']}/view", data={"open_to_view": "yes"})
    assert "looks-only" not in ada.get(address).text
    assert "looks-only" in vic.get(address).text
