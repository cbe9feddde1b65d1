"""The JSON API: a program finds, answers, takes back and exports as a person does."""

import csv
import io
import json
from dataclasses import replace
from datetime import datetime

import pytest
from sqlalchemy import extract, select

from app.engine.index import open_index
from app.errors import NotFound
from app.evaluation import (
    AnotherReplay,
    ReplaySettings,
    choose_strategies,
    read_replay,
    run_replays,
)
from app.filtering import Filter
from app.oracle import read_oracle_of
from app.replay_client import ServerRefused, read_oracle_on_server, run_replays_on_server
from app.security import add_token, get_local_person, revoke_token
from app.tables import Collection, Image, Import, OracleLabel, Person, Search, Seat
from tests.factories import make_collection, make_images, make_index
from tests.features.test_jobs import wait_until

COUNT, ALIKE = 100, 10


@pytest.fixture
def api(web):
    """The application with a collection, asked with a token; `collection_id`, `image_ids` on it."""
    state = web.app.state
    with state.database.session() as session:
        collection = make_collection(session)
        images = make_images(session, collection, COUNT)
        make_index(session, state.settings, images)
        for n, image in enumerate(images):  # every third is of July
            image.captured_at = datetime(2025, 7 if n % 3 == 0 else 5, 1, 12)
        session.add_all(
            OracleLabel(image_id=image.id, label="heron" if n < ALIKE else "empty")
            for n, image in enumerate(images)
        )
        token = add_token(session, get_local_person(session), "tests")
        web.collection_id, web.image_ids = collection.id, [image.id for image in images]
        web.paths = [image.path for image in images]
    web.headers["Authorization"] = f"Bearer {token}"
    return web


def open_search(api, **body):
    given = {"target_name": "Grey heron", "image_ids": [api.image_ids[0]], "round_size": 6}
    response = api.post(f"/api/v1/collections/{api.collection_id}/searches", json=given | body)
    assert response.status_code == 201, response.text
    return response.json()


def submit(api, search, grid, answers=None, **more):
    body = {"round_id": grid["round_id"], "answers": answers or {}, "rest_are_no": True, **more}
    response = api.post(f"/api/v1/searches/{search['search_id']}/submit", json=body)
    assert response.status_code == 200, response.text
    return response.json()


def test_a_submit_that_says_nothing_of_the_rest_leaves_the_persons_tick(api):
    search = open_search(api)

    def is_ticked():
        with api.app.state.database.session() as session:
            return session.scalars(select(Seat.rest_are_no)).one()

    address = f"/api/v1/searches/{search['search_id']}"
    for more, ticked in (
        ({"rest_are_no": True}, True),
        ({}, True),
        ({"rest_are_no": False}, False),
        ({}, False),
    ):
        grid = api.get(f"{address}/round").json()
        answered = api.post(f"{address}/submit", json={"round_id": grid["round_id"], **more})
        assert answered.status_code == 200 and not answered.json()["already"]
        assert is_ticked() is ticked


def test_program_does_a_whole_search(api):
    assert api.get("/api/v1/collections").json() == [
        {"collection_id": api.collection_id, "name": "Pond", "notice": None, "image_count": COUNT}
    ]
    search = open_search(api)
    address = f"/api/v1/searches/{search['search_id']}"
    first = search["round"]
    assert first["number"] == 1 and len(first["images"]) == 6 and first["found"] == 1
    shown = [image["image_id"] for image in first["images"]]
    assert set(shown) <= set(api.image_ids[1:ALIKE])

    half = {"round_id": first["round_id"], "answers": {shown[0]: "yes"}}
    assert api.post(f"{address}/answers", json=half).json()["answers"] == {str(shown[0]): "yes"}
    assert api.get(f"{address}/round").json()["images"][0]["answer"] == "yes"

    second = submit(api, search, first, dict.fromkeys(shown, "yes"))
    assert second["already"] is False
    assert second["round"]["number"] == 2 and second["round"]["found"] == 7
    assert not {image["image_id"] for image in second["round"]["images"]} & set(shown)

    taken_back = api.post(f"{address}/undo", json={}).json()
    assert "round 1" in taken_back["sentence"]
    assert taken_back["round"]["round_id"] == first["round_id"]
    assert api.post(f"{address}/redo", json={}).json()["round"] == second["round"]

    results = api.get(f"{address}/results", params={"show": "yes"}).json()
    assert {image["image_id"] for image in results["images"]} == {api.image_ids[0], *shown}
    exported = csv.DictReader(io.StringIO(api.get(f"{address}/export").text))
    found = [api.image_ids[0], *shown]
    assert {row["path"] for row in exported} == {api.paths[api.image_ids.index(i)] for i in found}
    assert len(api.get(f"{address}/export", params={"format": "jsonl"}).text.splitlines()) == 7


def test_an_image_has_one_path_wherever_it_is_named(api):
    search = open_search(api)
    address = f"/api/v1/searches/{search['search_id']}"

    def list_paths():
        images = api.get(f"/api/v1/collections/{api.collection_id}/images").json()
        grid = api.get(f"{address}/round").json()["images"]
        results = api.get(f"{address}/results", params={"show": "yes"}).json()["images"]
        path_of = {image["image_id"]: image["path"] for image in images}
        assert all(path_of[one["image_id"]] == one["path"] for one in [*grid, *results])
        return list(path_of.values()), [image["full_path"] for image in images]

    assert list_paths() == (api.paths, api.paths)
    with api.app.state.database.session() as session:
        folders = {"source": "/s", "labels": "folders", "state": "done"}
        session.add(Import(collection_id=api.collection_id, **folders))
    alone = [path.rsplit("/", 1)[1] for path in api.paths]
    assert list_paths() == (alone, api.paths)  # an admin sees known labels
    with api.app.state.database.session() as session:
        get_local_person(session).role = "ecologist"
    assert list_paths() == (alone, [None] * COUNT)


def test_no_has_its_reason_as_on_the_page(api):
    search = open_search(api)
    assert search["no_reasons"] == ["other-species", "too-poor", "empty"]
    address = f"/api/v1/searches/{search['search_id']}"
    grid = search["round"]
    first, second, third, *_ = (image["image_id"] for image in grid["images"])
    body = {
        "round_id": grid["round_id"],
        "answers": {first: "no", second: "no", third: "yes"},
        "reasons": {first: "too-poor"},
    }
    given = api.post(f"{address}/answers", json=body).json()
    assert given["answers"] == {str(first): "no", str(second): "no", str(third): "yes"}
    assert given["reasons"] == {str(first): "too-poor"}
    shown = {one["image_id"]: one for one in api.get(f"{address}/round").json()["images"]}
    assert [shown[one]["no_reason"] for one in (first, second, third)] == ["too-poor", None, None]
    for reasons, part in (
        ({third: "empty"}, f"Image {third} has a reason and is not answered no"),
        ({987_654: "empty"}, "Image 987654 has a reason"),
        ({first: "boring"}, "no such reason for a no"),
    ):
        refused = api.post(f"{address}/answers", json=body | {"reasons": reasons})
        assert refused.status_code == 422 and part in refused.json()["detail"]
    submit(api, search, grid, {second: "no"}, reasons={second: "empty"})
    results = api.get(f"{address}/results", params={"show": "no"}).json()["images"]
    reasons = {one["image_id"]: one["no_reason"] for one in results}
    assert (reasons[first], reasons[second]) == ("too-poor", "empty")
    rows = csv.DictReader(io.StringIO(api.get(f"{address}/export").text))
    assert {row["no_because"] for row in rows} >= {"too-poor", "empty"}


def test_tags_and_notes_are_read_and_written(api):
    search = open_search(api)
    image, other = api.image_ids[:2]
    on_image = f"/api/v1/collections/{api.collection_id}/images/{image}/remarks"
    body = {"add_tags": ["Wet", "fog"], "add_note": "Two of them"}
    made = api.post(on_image, json=body).json()
    assert made["tags"] == ["fog", "wet"] and made["notes"][0]["text"] == "Two of them"
    note_id = made["notes"][0]["note_id"]
    changed = api.post(on_image, json={"change_note": {note_id: "Three"}, "remove_tags": ["FOG"]})
    assert changed.json() == api.get(on_image).json()
    assert changed.json()["tags"] == ["wet"]
    assert changed.json()["notes"][0]["text"] == "Three"
    failed = api.post(on_image, json={"add_tags": ["new"], "add_note": " "})
    assert failed.status_code == 422
    assert api.get(on_image).json()["tags"] == ["wet"]  # nothing of it

    many = {"image_ids": [image, other], "add_tags": ["wet"]}
    tagged = api.post(f"/api/v1/collections/{api.collection_id}/tags", json=many).json()
    assert tagged == {"image_ids": [other]}
    images = api.get(f"/api/v1/collections/{api.collection_id}/images", params={"limit": 3}).json()
    assert [one["tags"] for one in images] == [["wet"], ["wet"], []]
    results = api.get(f"/api/v1/searches/{search['search_id']}/results").json()["images"]
    assert results[0]["tags"] == ["wet"] and results[0]["notes"][0]["text"] == "Three"

    on_search = f"/api/v1/searches/{search['search_id']}/remarks"
    assert api.post(on_search, json={"add_tags": ["pilot"]}).json()["tags"] == ["pilot"]
    for find, count in (("pilot", 1), ("heron", 1), ("wet", 0)):
        found = api.get("/api/v1/searches", params={"find": find}).json()
        assert len(found) == count, find
    assert api.get("/api/v1/searches").json()[0]["tags"] == ["pilot"]


def test_long_export_is_asked_for_and_fetched(api):
    search = open_search(api)
    body = {"search_id": search["search_id"], "name": "search.rarefind"}
    asked = api.post("/api/v1/exports", json=body)
    assert asked.status_code == 202
    address = f"/api/v1/exports/{asked.json()['export_id']}"
    wait_until(lambda: api.get(address).json()["state"] not in ("waiting", "running"))
    made = api.get(address).json()
    assert (made["state"], made["problem"]) == ("ready", None)
    file = api.get(made["file"])
    assert len(file.content) == made["size_bytes"] and file.content[:2] == b"PK"
    wrong = api.post("/api/v1/exports", json=body | {"name": "x.zip"})
    assert wrong.status_code == 404 and "There are: answers.csv" in wrong.json()["detail"]


def test_repeated_submit_doubles_nothing(api):
    search = open_search(api)
    once = submit(api, search, search["round"], gesture_key="one")
    again = submit(api, search, search["round"], gesture_key="one")
    other = submit(api, search, search["round"], gesture_key="two")
    assert again["already"] and other["already"]
    assert again["round"] == other["round"] == once["round"]


def test_same_seed_gives_the_same_rounds(api):
    searches = [open_search(api, strategy="random", seed=5) for _ in range(2)]
    searches.append(open_search(api, strategy="random", seed=6))
    shown = [[image["image_id"] for image in one["round"]["images"]] for one in searches]
    assert shown[0] == shown[1] != shown[2]
    assert [one["seed"] for one in searches] == [5, 5, 6]


def test_images_are_read_in_parts(api):
    address = f"/api/v1/collections/{api.collection_id}/images"
    first = api.get(address, params={"limit": 60}).json()
    rest = api.get(address, params={"after": first[-1]["image_id"]}).json()
    assert [image["image_id"] for image in first + rest] == api.image_ids
    assert api.get(address, params={"after": api.image_ids[-1]}).json() == []


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        ({"strategy": "best"}, "best"),
        ({"round_size": 5}, "from 6 to 48"),
        ({"image_ids": []}, "describe in words"),
        ({"image_ids": [2**63]}, "image_ids|less than"),
        ({"image_ids": [987654321]}, "not among the prepared"),
        ({"seed": -1}, "seed"),
        ({"target_name": " "}, "empty"),
        ({"seeds": 1}, "seeds"),
    ],
)
def test_wrong_openings_are_told_as_json(api, change, detail):
    body = {"target_name": "x", "image_ids": [api.image_ids[0]]} | change
    response = api.post(f"/api/v1/collections/{api.collection_id}/searches", json=body)
    assert response.status_code == 422
    assert set(response.json()) == {"error", "title", "detail"}
    assert any(part in response.json()["detail"] for part in detail.split("|"))


def test_other_peoples_searches_are_not_found(api):
    search = open_search(api)
    with api.app.state.database.session() as session:
        other = Person(name="other", role="ecologist")
        session.add(other)
        session.flush()
        token = add_token(session, other, "theirs")
    theirs = {"Authorization": f"Bearer {token}"}
    for address in ("", "/round", "/results", "/export"):
        answer = api.get(f"/api/v1/searches/{search['search_id']}{address}", headers=theirs)
        assert (answer.status_code, answer.json()["error"]) == (404, "NotFound")
    assert api.get("/api/v1/searches", headers=theirs).json() == []
    assert [one["search_id"] for one in api.get("/api/v1/searches").json()] == [search["search_id"]]


def test_token_is_needed_kept_as_a_hash_and_can_be_revoked(api):
    state = api.app.state
    for header in ("Bearer wrong", "Bearer ", "Basic abc"):
        refused = api.get("/api/v1/collections", headers={"Authorization": header})
        assert (refused.status_code, refused.json()["error"]) == (401, "NotSignedIn")
        assert "rarefind token add" in refused.json()["detail"]
    with state.database.session() as session:
        person = get_local_person(session)
        text = str(session.connection().exec_driver_sql("SELECT * FROM api_tokens").all())
        assert api.headers["Authorization"].split()[1] not in text
        revoke_token(session, person, "tests")
    assert api.get("/api/v1/collections").status_code == 401


def test_other_sites_can_use_no_cookie_but_programs_may_call_from_anywhere(client):
    """A signed-in browser led here by another site is refused; with a token its cookie is void."""
    with client.app.state.database.session() as session:
        collection = make_collection(session)
        token = add_token(session, get_local_person(session), "tests")
    foreign = {"Sec-Fetch-Site": "cross-site", "Origin": "https://elsewhere.example"}
    address = f"/api/v1/collections/{collection.id}/searches"
    body = {"target_name": "x", "image_ids": [1]}
    refused = client.post(address, json=body, headers=foreign)
    assert (refused.status_code, refused.json()["error"]) == (403, "CrossSiteRequest")
    wrong = client.post(address, json=body, headers=foreign | {"Authorization": "Bearer wrong"})
    assert wrong.status_code == 401
    passed = client.post(address, json=body, headers=foreign | {"Authorization": f"Bearer {token}"})
    assert (passed.status_code, passed.json()["error"]) == (409, "NoIndexYet")


def test_openapi_describes_the_api_and_no_page(api):
    described = api.get("/api/v1/openapi.json", headers={"Authorization": ""}).json()
    assert all(path.startswith("/api/v1/") for path in described["paths"])
    assert "/api/v1/searches/{search_id}/submit" in described["paths"]
    assert described["components"]["securitySchemes"]
    answers = described["paths"]["/api/v1/searches/{search_id}/round"]["get"]["responses"]
    assert answers["403"]["content"]["application/json"]["schema"]["$ref"].endswith("/Problem")
    assert "“read”" in described["components"]["securitySchemes"]["HTTPBearer"]["description"]
    assert answers["404"]["content"]["application/json"]["schema"]["$ref"].endswith("/Problem")
    assert answers["200"]["content"]["application/json"]["schema"]["$ref"].endswith("/RoundModel")


@pytest.fixture
def labels(api, tmp_path):
    lines = [f"{path},{'heron' if n < ALIKE else ''}" for n, path in enumerate(api.paths)]
    file = tmp_path / "labels.csv"
    file.write_text("\n".join(["file,label", *lines]))
    return file


@pytest.mark.slow
def test_replay_on_a_server_shows_the_images_of_the_offline_one(api, labels, tmp_path):
    """Every strategy: the live search and the replay are one loop."""
    state = api.app.state
    settings = ReplaySettings(
        targets=("heron",),
        strategies=choose_strategies(["all"]),
        rounds=3,
        size=6,
        open_with=2,
        seeds=1,
        oracle_error=0.1,
        oracle_unsure=0.1,
        holdout=0.0,
    )
    oracle, collection_id = read_oracle_on_server(api, "Pond", labels)
    served = run_replays_on_server(api, collection_id, oracle, settings, tmp_path / "served")
    with state.database.session() as session:
        collection = session.get_one(Collection, api.collection_id)
        own, folder = read_oracle_of(session, collection, settings=state.settings)
        assert len(session.scalars(select(Search)).all()) == len(settings.strategies)
    offline = run_replays(own, folder, settings, tmp_path / "offline")
    for one, other in zip(served, offline, strict=True):
        assert (one.strategy, one.opening) == (other.strategy, other.opening)
        assert (one.strategy, one.shown) == (other.strategy, other.shown)
        assert one.values == other.values
        assert [row.recall for row in one.rows] == pytest.approx(
            [row.recall for row in other.rows], abs=1e-6
        )
        assert all(row.wait_ms > row.proposing_ms > 0 for row in one.rows)
    assert {len(run.shown) for run in served} == {3}
    lines = (tmp_path / "served" / "rounds.csv").read_text().splitlines()
    header = lines[0]
    for line in csv.DictReader(lines):  # a client does not know the server's events
        assert [line[name] for name in line if "event" in name] == ["", "", ""]
    assert header.endswith("proposing_ms,wait_ms")
    assert open_index(folder).count == COUNT
    assert read_replay(tmp_path / "served")[0]["server"] == str(api.base_url)


def test_program_browses_and_searches_a_part(api):
    address = f"/api/v1/collections/{api.collection_id}/images"
    july = api.image_ids[::3]
    assert [one["image_id"] for one in api.get(f"{address}?where=month%3D7").json()] == july
    both = api.get(address, params={"where": ["month=5", "month=7"], "after": july[-2]}).json()
    assert [one["image_id"] for one in both] == api.image_ids[97:]
    for wrong, said in (("month", "KEY=VALUE"), ("moon=full", "There is no filter")):
        answer = api.get(address, params={"where": wrong})
        assert (answer.status_code, answer.json()["error"]) == (422, "BadInput")
        assert said in answer.json()["detail"]
    search = open_search(api, where=["month=7"])
    assert (search["where"], search["image_count"], search["left_out"]) == (["month=7"], 34, 66)
    for _ in range(2):
        assert {one["image_id"] for one in search["round"]["images"]} <= set(july)
        search |= submit(api, search, search["round"])
    read = api.get(f"/api/v1/searches/{search['search_id']}").json()
    assert read["where"] == ["month=7"]
    empty = {"target_name": "x", "image_ids": api.image_ids[:1], "where": ["month=1"]}
    refused = api.post(f"/api/v1/collections/{api.collection_id}/searches", json=empty)
    assert refused.status_code == 422 and "No image is left" in refused.json()["detail"]


@pytest.mark.slow
def test_filtered_replay_on_a_server_shows_the_images_of_the_offline_one(api, labels, tmp_path):
    state = api.app.state
    where = ("month=7",)
    settings = ReplaySettings(
        targets=("heron",),
        strategies=("pf-ma",),
        rounds=3,
        size=6,
        seeds=2,
        holdout=0.0,
        where=where,
    )
    oracle, collection_id = read_oracle_on_server(api, "Pond", labels, where=where)
    served = run_replays_on_server(api, collection_id, oracle, settings, tmp_path / "served")
    with state.database.session() as session:
        collection = session.get_one(Collection, api.collection_id)
        own, folder = read_oracle_of(
            session, collection, settings=state.settings, chosen=Filter((("month", "7"),))
        )
    offline = run_replays(own, folder, settings, tmp_path / "offline")
    assert [one.shown for one in served] == [one.shown for one in offline]
    assert {image for one in served for ids in one.shown for image in ids} <= set(
        api.image_ids[::3]
    )
    assert {row.n_target for one in served for row in one.rows} == {4}
    with state.database.session() as session:
        other = session.scalars(select(Image).where(extract("month", Image.captured_at) != 7))
        other.first().captured_at = datetime(2025, 7, 1, 12)
    with pytest.raises(ServerRefused, match=r"looks at 35 images now, and at 34 when this began"):
        run_replays_on_server(
            api, collection_id, oracle, replace(settings, seeds=3), tmp_path / "served"
        )


def test_replay_on_a_server_is_not_gone_on_with_once_images_were_added(api, labels, tmp_path):
    plan = ReplaySettings(("heron",), ("random",), rounds=1, size=6, seeds=1, holdout=0.0)
    oracle, collection_id = read_oracle_on_server(api, "Pond", labels)
    run_replays_on_server(api, collection_id, oracle, plan, tmp_path / "served")
    told = tmp_path / "served" / "manifest.json"  # as an earlier version wrote it
    added = ("kept_sha256", "images_sha256", "groups_sha256")
    manifest = json.loads(told.read_text())
    told.write_text(json.dumps({name: manifest[name] for name in manifest if name not in added}))
    run_replays_on_server(api, collection_id, oracle, plan, tmp_path / "served")
    longer = replace(plan, seeds=2)
    with api.app.state.database.session() as session:
        collection = session.get_one(Collection, collection_id)
        added = make_images(session, collection, 1, first=COUNT)
        path = added[0].path
    with pytest.raises(ServerRefused, match=r"looks at 101 images now, and at 100 when this began"):
        run_replays_on_server(api, collection_id, oracle, longer, tmp_path / "served")
    with labels.open("a") as file:
        file.write(f"\n{path},\n")
    oracle, _ = read_oracle_on_server(api, "Pond", labels)
    with pytest.raises(AnotherReplay, match="which images it looks at"):
        run_replays_on_server(api, collection_id, oracle, longer, tmp_path / "served")


def test_replay_on_a_server_takes_a_collection_by_name_or_number(api, labels):
    by_name, collection_id = read_oracle_on_server(api, "Pond", labels)
    by_number, same = read_oracle_on_server(api, str(api.collection_id), labels)
    assert collection_id == same == api.collection_id
    assert by_number.collection == by_name.collection == "Pond"
    with pytest.raises(NotFound, match=rf"no collection “Lake”\. There are: .*{same} Pond"):
        read_oracle_on_server(api, "Lake", labels)


def test_server_that_refuses_is_a_sentence(api, labels):
    api.headers["Authorization"] = "Bearer wrong"
    with pytest.raises(ServerRefused, match="rarefind token add"):
        read_oracle_on_server(api, "Pond", labels)
