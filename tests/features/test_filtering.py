"""Filters: what each key keeps, chips, searches that look at a part and repeat their rounds."""

from datetime import date, datetime
from types import SimpleNamespace

import numpy as np
import pytest
from sqlalchemy import delete, select, text

from app import searching
from app.adjusting import filter_search
from app.browsing import list_images, sample_images
from app.dashboards.moments import open_moment
from app.engine.bounds import enclose, read_fields
from app.errors import BadInput
from app.evaluation import ReplaySettings, run_replays
from app.events import group_anew
from app.filtering import (
    Filter,
    count_kept,
    describe_offer,
    list_chips,
    list_image_ids,
    read_filter,
    to_condition,
)
from app.forgetting import remove_table
from app.indexing import LoadedEmbedders, OpenIndexes
from app.metadata import add_table, list_tables
from app.oracle import read_oracle_of
from app.premises import read_plan
from app.reporting import current_grid, upcoming_images
from app.results import list_results
from app.rounds import repeat_round
from app.searchers import note_images
from app.sensitive import guard_places
from app.tables import (
    Collection,
    Deployment,
    Detour,
    Image,
    ImageIndex,
    ImagePath,
    Import,
    OracleLabel,
    Person,
    Pool,
    Round,
    RoundImage,
    Search,
)
from app.workers import Readers
from tests.factories import make_collection, make_images, make_index, make_person

# day, hour, latitude, longitude, folder, depth, bait
SEEN = [
    ("2024-01-31", 23, 51.0, 4.0, "A", "1", "fish"),
    ("2024-02-01", 0, 51.5, 4.5, "A", "2.5", "none"),
    ("2024-06-15", 12, -10.0, 179.5, "B", "10", "fish"),
    ("2024-12-01", 5, -10.5, -179.5, "B", "", "sub-zero"),
    (None, 0, None, None, "", "", ""),
]


@pytest.fixture
def pond(session):
    collection = make_collection(session)
    images = make_images(session, collection, len(SEEN))
    lines = ["file,depth,bait,at"]
    for number, (image, seen) in enumerate(zip(images, SEEN, strict=True)):
        day, hour, image.latitude, image.longitude, folder, depth, bait = seen
        image.path = f"{folder}/{number}.jpg".lstrip("/")
        image.captured_at = datetime.fromisoformat(f"{day}T{hour:02}:59") if day else None
        known = {"image_id": image.id, "path": image.path, "size_bytes": 1, "modified_ns": 1}
        session.add(ImagePath(collection_id=collection.id, **known))
        if day:
            lines.append(f"{image.path},{depth},{bait},{day} {hour:02}:00")
    person = make_person(session)
    session.flush()
    table = "\n".join(lines).encode()
    add_table(session, collection.id, name="t.csv", data=table, person=person)
    return SimpleNamespace(session=session, id=collection.id, images=images, person=person)


def read(pond, where):
    pairs = [tuple(part.split("=", 1)) for part in where.split()]
    return read_filter(pond.session, pond.id, pairs, person=pond.person)


@pytest.mark.parametrize(
    ("where", "kept"),
    [
        ("", [0, 1, 2, 3, 4]),
        ("from=2024-02-01", [1, 2, 3]),
        ("to=2024-01-31", [0]),  # the whole last day
        ("hour_from=23 hour_to=0", [0, 1]),  # over midnight
        ("hour_from=5 hour_to=12", [2, 3]),
        ("month=12-2", [0, 1, 3]),
        ("month=1 month=6", [0, 2]),
        ("south=50 north=52 west=4.2 east=5", [1]),
        ("south=-11 north=-9 west=179 east=-179", [2, 3]),  # across the date line
        ("deployment=A", [0, 1]),
        ("deployment=A deployment=B month=6", [2]),
        ("min.depth=2.5", [1, 2]),  # as numbers: 10 is more than 2.5
        ("max.depth=2.5", [0, 1]),
        ("is.bait=fish is.bait=none", [0, 1, 2]),
        ("min.at=2024-02-01 max.at=2024-06-15", [1, 2]),
        ("given=none", [4]),
        ("given=any min.depth=3", [2]),
    ],
)
def test_each_key_keeps_what_it_says(pond, where, kept):
    chosen = read(pond, where)
    ids = [pond.images[number].id for number in kept]
    assert list_image_ids(pond.session, pond.id, chosen).tolist() == ids
    count = count_kept(pond.session, pond.id, chosen)
    assert (count.count, count.left_out) == (len(kept), 5 - len(kept))
    listing = list_images(pond.session, pond.id, page=1, chosen=chosen)
    assert sorted(image.id for image in listing.images) == ids
    assert listing.total == len(ids)
    sampled = sample_images(pond.session, pond.id, seed=1, chosen=chosen)
    assert sorted(image.id for image in sampled) == ids


@pytest.mark.parametrize(
    ("where", "within"),
    [
        ("from=2024-02-01", [1, 2, 3]),
        ("to=2024-01-31", [0]),
        ("hour_from=23 hour_to=0", [0, 1]),
        ("month=12-2", [0, 1, 3]),
        ("south=50 north=52 west=4.2 east=5", [1]),
        ("south=-11 north=-9 west=179 east=-179", [2, 3]),
        ("deployment=A", [0, 1]),
        ("given=none", [4]),  # of which nothing is known
    ],
)
def test_bounds_around_what_a_filter_keeps_hold_nothing_else(pond, tmp_path, where, within):
    image_ids = np.array([image.id for image in pond.images])
    note_images(pond.session, tmp_path, image_ids)
    kept = list_image_ids(pond.session, pond.id, read(pond, where))
    rows = np.flatnonzero(np.isin(image_ids, kept))
    assert rows.tolist() == within
    bounds, count = enclose(read_fields(tmp_path), rows)
    assert bounds and count == len(within)


def test_no_box_tells_places_of_one_cell_apart(pond):
    """On the edges, too: 51.05 is the first degree of the cell of 51.1."""
    guard_places(pond.session, pond.person, get_pond(pond), grid="0.1", people=[])
    stranger = make_person(pond.session, name="Sam", role="ecologist")
    places = [(51.0501, 4.0), (51.149, 4.0499), (51.1, 4.01), (51.0499, 4.0), (51.151, 3.951)]
    for image, (latitude, longitude) in zip(pond.images, places, strict=True):
        image.latitude, image.longitude = latitude, longitude
    pond.session.flush()
    together = {image.id for image in pond.images[:3]}
    sides = [51.0, 51.0499, 51.05, 51.0501, 51.1, 51.149, 51.1499, 51.15, 51.1501, 51.2]
    boxes = [(south, north) for south in sides for north in sides if south <= north]
    some = 0
    for south, north in boxes:
        for west, east in ((3.9, 4.2), (4.0, 4.0), (4.0499, 4.0499), (179.0, 4.0)):
            pairs = {"south": south, "north": north, "west": west, "east": east}
            pairs = [(side, str(degrees)) for side, degrees in pairs.items()]
            chosen = read_filter(pond.session, pond.id, pairs, person=stranger)
            kept = set(list_image_ids(pond.session, pond.id, chosen).tolist())
            assert not kept & together or kept >= together, pairs
            some += kept >= together
            # What was shown of it, taken again, keeps the same.
            again = Filter(chosen.without("grid"))
            again = read_filter(pond.session, pond.id, again.pairs, person=stranger)
            assert again == chosen
    assert some > 100
    # Nor do columns of tables, or a key from outside.
    lines = "\n".join(f"{image.path},{image.latitude}" for image in pond.images)
    table = f"file,site_lat\n{lines}".encode()
    add_table(pond.session, pond.id, name="l.csv", data=table, person=pond.person)
    for pairs in ([("min.site_lat", "51.07")], [("grid", "0.0001")]):
        with pytest.raises(BadInput):
            read_filter(pond.session, pond.id, pairs, person=stranger)
    offer = describe_offer(pond.session, stranger, pond.id)
    assert "site_lat" not in {column.name for column in offer.columns}
    assert {(round(p.latitude, 4), round(p.longitude, 4)) for p in offer.map.places} == {
        (51.1, 4.0),
        (51.0, 4.0),
        (51.2, 4.0),
    }


def test_stored_box_of_somebody_who_is_not_trusted_any_more_is_coarse_at_the_next_round(
    hunt,
):
    session, search = hunt.session, hunt.search
    images = {image.id: image for image in hunt.images}
    for number, image in enumerate(hunt.images):
        image.latitude, image.longitude = (51.01 if number % 2 else 51.02), 4.0
    session.flush()
    owner = session.get_one(Person, search.owner_id)
    pairs = [("south", "51.0"), ("north", "51.015"), ("west", "3"), ("east", "5")]
    filter_search(session, search, read_filter(session, search.collection_id, pairs, person=owner))
    submit(hunt)
    kept = session.get_one(Pool, session.get_one(Round, search.current_round_id).pool_id)
    latitudes = {images[i].latitude for i in np.frombuffer(kept.image_ids, "<i8").tolist()}
    assert latitudes == {51.01}
    owner.role = "ecologist"
    collection = session.get_one(Collection, search.collection_id)
    collection.place_grid, collection.made_by_id = 0.1, None
    session.flush()
    submit(hunt)
    kept = session.get_one(Pool, session.get_one(Round, search.current_round_id).pool_id)
    assert ["grid", "0.1"] in kept.filter
    assert len(kept.image_ids) == 8 * len(hunt.images)


def get_pond(pond):
    return pond.session.get_one(Collection, pond.id)


def test_chips_take_their_part_away_and_the_count_says_what_is_not_known(pond):
    chosen = read(
        pond, "to=2024-12-31 from=2024-01-01 hour_from=20 hour_to=4 month=12-2 is.bait=none"
    )
    chips = list_chips(pond.session, chosen)
    assert [chip.words for chip in chips] == [
        "1 Jan 2024 to 31 Dec 2024",
        "20:00 to 04:59",
        "December to February",
        "bait: none",
    ]
    assert "month" in dict(chips[0].rest) and "from" not in dict(chips[0].rest)
    assert dict(chips[2].rest).keys() == {"from", "to", "hour_from", "hour_to", "is.bait"}
    assert count_kept(pond.session, pond.id, chosen).unknown == [
        ("no known time", 1),
        ("no bait", 1),
    ]
    offer = describe_offer(pond.session, pond.person, pond.id)
    assert offer.deployments == [("A", "", 2), ("B", "", 2)]
    assert sum(place.count for place in offer.map.places) == 4
    assert all(0 <= place.x <= 1 and 0 <= place.y <= 1 for place in offer.map.places)


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("from=2024-13-01", "no date"),
        ("from=20240101", "no date"),
        ("from=2024-02-01 to=2024-01-01", "From, 2024-02-01, is later than to, 2024-01-01"),
        ("hour_from=24", "from 0 to 23"),
        ("month=13", "no month"),
        ("month=5-6-7", "no month"),
        ("south=1 north=2", "all four sides"),
        ("south=3 north=2 west=1 east=2", "Exchange"),
        ("south=-91 north=2 west=1 east=2", "degrees"),
        ("is.nothing=1", "No table here has a column"),
        ("is.depth=1", "holds numbers"),
        ("min.depth=deep", "no number"),
        ("min.depth=nan", "no number"),
        (
            "min.depth=10 max.depth=9.5",
            "“depth” begins at what is larger than its end, 10 than 9.5",
        ),
        ("answer=maybe:1", "answer is yes"),
        ("colour=red", "There is no filter"),
    ],
)
def test_what_cannot_be_a_filter_says_why(pond, where, said):
    with pytest.raises(BadInput, match=said):
        read(pond, where)


@pytest.fixture
def hunt(session, settings):
    """100 images, the first ten alike; deployment A holds the even ones."""
    collection = make_collection(session)
    images = make_images(session, collection, 100)
    for number, image in enumerate(images):
        image.path = f"{'AB'[number % 2]}/{number:03}.jpg"
    make_index(session, settings, images)
    person = make_person(session)
    indexes = OpenIndexes(settings)
    chosen = read_filter(session, collection.id, [("deployment", "A")], person=person)
    search = searching.open_search(
        session,
        person=person,
        collection_id=collection.id,
        target_name="Heron",
        round_size=6,
        image_ids=[images[1].id],  # an example need not be among them
        photo_ids=[],
        chosen=chosen,
        seed=1,
        indexes=indexes,
        embedders=LoadedEmbedders(settings, Readers(settings)),
        settings=settings,
    )
    return SimpleNamespace(
        session=session, search=search, images=images, person=person, indexes=indexes
    )


def shown(hunt):
    return [card.image_id for card in current_grid(hunt.session, hunt.search, hunt.person).cards]


def submit(hunt, yes=()):
    searching.submit_answers(
        hunt.session,
        hunt.search,
        person=hunt.person,
        round_id=hunt.search.current_round_id,
        values={one: "yes" for one in shown(hunt) if one in yes},
        rest_are_no=True,
        gesture_key=None,
        indexes=hunt.indexes,
    )


def test_search_is_kept_to_a_folder_only_where_folders_tell_no_answer(hunt):
    session, search = hunt.session, hunt.search
    in_b = read_filter(session, search.collection_id, [("folder", "B")], person=hunt.person)
    filter_search(session, search, in_b)
    kept = list_image_ids(session, search.collection_id, in_b)
    assert kept.tolist() == [image.id for image in hunt.images[1::2]]
    session.add(
        Import(collection_id=search.collection_id, source="/s", labels="folders", state="done")
    )
    session.flush()
    in_a = read_filter(session, search.collection_id, [("folder", "A")], person=hunt.person)
    assert list_image_ids(session, search.collection_id, in_a).size == 50
    with pytest.raises(BadInput, match="tell the answer"):
        filter_search(session, search, in_a)
    ben = make_person(session, name="ben", role="ecologist")
    with pytest.raises(BadInput, match="not shown"):
        read_filter(session, search.collection_id, [("folder", "A")], person=ben)


def test_filtered_search_shows_only_what_fits_and_repeats_when_the_truth_has_moved(hunt):
    session, search = hunt.session, hunt.search
    even = {image.id for image in hunt.images[::2]}
    alike = {image.id for image in hunt.images[:10]}
    seen = [shown(hunt)]
    for _ in range(2):
        assert set(upcoming_images(session, search, hunt.person, hunt.indexes)) <= even
        submit(hunt, alike)
        seen.append(shown(hunt))
    assert all(set(one) <= even for one in seen)
    likely = list_results(session, search, show="likely", page=1, indexes=hunt.indexes)
    assert {card.image_id for card in likely.cards} <= even
    # What is said of images left is said of those that fit.
    moment = open_moment(session, search, hunt.indexes, None)
    assert moment.image_count == 50
    answered = set(moment.values)
    open_ids = set(moment.index.image_ids[moment.unanswered].tolist())
    assert open_ids == even - answered
    # So is a sample: all of it fits, and all that fits may be in it.
    searching.take_detour(
        session,
        search,
        person=hunt.person,
        kind="absence",
        size=30,
        gesture_key=None,
        indexes=hunt.indexes,
    )
    detour = session.scalars(select(Detour)).one()
    plan, _ = read_plan(session, search, detour, hunt.indexes)
    assert set(moment.index.image_ids[plan.sample.frame].tolist()) <= even
    submit(hunt)
    # One pool serves all rounds; a filter that keeps others makes another.
    assert len(session.scalars(select(Pool)).all()) == 1
    for image in hunt.images[:50]:
        image.path = image.path.replace("A/", "C/")  # the truth moves
    session.flush()
    submit(hunt)
    assert len(session.scalars(select(Pool)).all()) == 2
    filter_search(session, search, Filter())
    for _ in range(6):  # the sample goes on to its end, then every image may come
        submit(hunt)
    assert not set(shown(hunt)) <= even
    for made in session.scalars(select(Round).order_by(Round.id)):
        stored = session.scalars(
            select(RoundImage.image_id).filter_by(round_id=made.id).order_by(RoundImage.position)
        ).all()
        again = repeat_round(session, made, hunt.indexes)
        index = hunt.indexes.get(session.get_one(ImageIndex, made.index_id))
        assert index.image_ids[again.rows].tolist() == list(stored), made.number
    session.execute(delete(Search))  # its pools go with its rounds
    assert session.scalars(select(Pool)).all() == []


def test_rounds_repeat_and_say_their_filter_when_the_table_it_looked_at_is_removed(hunt):
    session, search = hunt.session, hunt.search
    odd = hunt.images[1::2]
    rows = "sha256,bait\n" + "".join(f"{image.sha256},fish\n" for image in odd)
    data = rows.encode()
    add_table(session, search.collection_id, name="t.csv", data=data, person=hunt.person)
    filter_search(session, search, Filter((("is.bait", "fish"),)))
    for _ in range(2):
        submit(hunt, {image.id for image in hunt.images[:10]})
        assert set(shown(hunt)) <= {image.id for image in odd}
    (table,) = list_tables(session, search.collection_id)
    remove_table(session, search.collection_id, table.id, person=hunt.person)
    for made in session.scalars(select(Round).order_by(Round.id)):
        stored = session.scalars(
            select(RoundImage.image_id).filter_by(round_id=made.id).order_by(RoundImage.position)
        ).all()
        again = repeat_round(session, made, hunt.indexes)
        index = hunt.indexes.get(session.get_one(ImageIndex, made.index_id))
        assert index.image_ids[again.rows].tolist() == list(stored), made.number
    pool = session.scalars(select(Pool).order_by(Pool.id.desc())).first()
    assert [chip.words for chip in list_chips(session, Filter(tuple(map(tuple, pool.filter))))] == [
        "bait: fish"
    ]
    submit(hunt)
    assert shown(hunt) == [], "nothing fits until somebody changes the filter"


def test_rounds_repeat_when_the_times_and_events_they_went_by_go_with_their_table(hunt):
    session, search = hunt.session, hunt.search
    rows = "sha256,date,site\n" + "".join(
        f"{image.sha256},2026-03-08 {20 + number % 2}:{number // 4 * 2:02},{number // 40}\n"
        for number, image in enumerate(hunt.images)
    )
    data = rows.encode()
    add_table(session, search.collection_id, name="t.csv", data=data, person=hunt.person)
    group_anew(session, search.collection_id, indexes=hunt.indexes)
    late = read_filter(
        session, search.collection_id, [("hour_from", "21"), ("deployment", "0")],
        person=hunt.person,
    )  # fmt: skip
    filter_search(session, search, late)
    fitting = {image.id for image in hunt.images[1:40:2]}
    for _ in range(2):
        submit(hunt, {image.id for image in hunt.images[:10]})
        assert shown(hunt) and set(shown(hunt)) <= fitting
    assert session.get_one(Round, search.current_round_id).grouping_id is not None
    (table,) = list_tables(session, search.collection_id)
    remove_table(session, search.collection_id, table.id, person=hunt.person)
    group_anew(session, search.collection_id, indexes=hunt.indexes)
    assert repeat_all(hunt) == 3
    submit(hunt)
    assert shown(hunt) == [], "no image has a time until somebody changes the filter"


def repeat_all(hunt) -> int:
    """Have every round of the search proposed again alike; how many there are."""
    rounds = hunt.session.scalars(select(Round).order_by(Round.id)).all()
    for made in rounds:
        stored = hunt.session.scalars(
            select(RoundImage.image_id).filter_by(round_id=made.id).order_by(RoundImage.position)
        ).all()
        again = repeat_round(hunt.session, made, hunt.indexes)
        index = hunt.indexes.get(hunt.session.get_one(ImageIndex, made.index_id))
        assert index.image_ids[again.rows].tolist() == list(stored), made.number
    return len(rounds)


def test_a_filter_does_not_cut_a_sample_short_that_was_drawn_before(hunt):
    session, search = hunt.session, hunt.search
    submit(hunt, {image.id for image in hunt.images[:10]})
    searching.take_detour(
        session,
        search,
        person=hunt.person,
        kind="absence",
        size=24,
        gesture_key=None,
        indexes=hunt.indexes,
    )
    sample = shown(hunt)
    for image in hunt.images[41:45:2]:
        image.path = image.path.replace("B/", "Z/")
    session.flush()
    pairs = [("deployment", "Z")]
    chosen = read_filter(session, search.collection_id, pairs, person=hunt.person)
    assert len(list_image_ids(session, search.collection_id, chosen)) == 2
    filter_search(session, search, chosen)
    submit(hunt)
    assert len(shown(hunt)) == len(sample) == search.round_size
    made = session.get_one(Round, search.current_round_id)
    again = repeat_round(session, made, hunt.indexes)
    index = hunt.indexes.get(session.get_one(ImageIndex, made.index_id))
    assert index.image_ids[again.rows].tolist() == shown(hunt)


def test_search_is_filtered_by_the_answers_of_another(hunt):
    session = hunt.session
    first = shown(hunt)
    submit(hunt, first[:2])
    collection_id = hunt.search.collection_id

    def ids(state):
        pairs = [("answer", f"{state}:{hunt.search.id}")]
        chosen = read_filter(session, collection_id, pairs, person=hunt.person)
        return list_image_ids(session, collection_id, chosen).tolist()

    assert ids("yes") == sorted([hunt.images[1].id, *first[:2]])
    assert ids("no") == sorted(first[2:])
    assert len(ids("none")) == 93
    stranger = make_person(session, name="other", role="ecologist")
    pairs = [("answer", f"yes:{hunt.search.id}")]
    with pytest.raises(Exception, match="no such search"):
        read_filter(session, collection_id, pairs, person=stranger)


def test_filter_that_keeps_nothing_is_refused(hunt):
    with pytest.raises(BadInput, match="No image is left"):
        filter_search(hunt.session, hunt.search, Filter((("deployment", "Z"),)))


def test_replay_looks_only_where_it_is_told(hunt, settings, tmp_path):
    session = hunt.session
    for number, image in enumerate(hunt.images[::2]):  # the others have no known label
        session.add(OracleLabel(image_id=image.id, label="heron" if number < 5 else "other"))
    session.flush()
    collection = hunt.search.collection
    chosen = Filter((("deployment", "A"),))
    oracle, folder = read_oracle_of(session, collection, settings=settings, chosen=chosen)
    plan = ReplaySettings(
        targets=("heron",), strategies=("pf-ma",), rounds=8, size=6, seeds=2, holdout=0.2
    )
    runs = run_replays(oracle, folder, plan, tmp_path / "replay")
    even = {image.id for image in hunt.images[::2]}
    for run in runs:
        seen = {image_id for one in [run.opening, *run.shown] for image_id in one}
        assert seen <= even
        assert len(seen) == 40  # a fifth of the fifty is held out
        assert run.rows[-1].recall == 1
        assert not np.isnan(run.rows[-1].f1)


def test_days_offered_are_those_of_images_that_are_there_and_dated(session):
    collection = make_collection(session)
    images = make_images(session, collection, 5)
    (foreign,) = make_images(session, make_collection(session, name="Other"), 1)
    for image, year in zip([*images, foreign], (2000, 2021, 2022, None, 2040, 1990), strict=True):
        image.captured_at = datetime(year, 5, 31, 23, 30) if year else None
    images[0].removed_at = images[4].removed_at = datetime(2026, 1, 1)
    session.flush()
    offer = describe_offer(session, make_person(session), collection.id)
    assert (offer.first_day, offer.last_day) == (date(2021, 5, 31), date(2022, 5, 31))
    images[1].captured_at = images[2].captured_at = None
    session.flush()
    offer = describe_offer(session, make_person(session, name="Ben"), collection.id)
    assert (offer.first_day, offer.last_day) == (None, None)


def test_deployment_is_an_image_s_own_else_its_folder_and_looked_up_once(session):
    """A query for each image took 40 s in a collection of a million."""
    collection, other = make_collection(session), make_collection(session, name="Other")
    images = make_images(session, collection, 5)
    mine, foreign = (Deployment(collection_id=one.id, name="A") for one in (collection, other))
    second = Deployment(collection_id=collection.id, name="B")
    session.add_all([mine, foreign, second])
    session.flush()
    own = (mine.id, second.id, None, None, mine.id)
    for image, folder, deployment_id in zip(images, "AAACX", own, strict=True):
        image.path = f"{folder}/{image.path}"
        image.deployment_id = deployment_id
    session.flush()
    kept = {
        name: list_image_ids(session, collection.id, Filter((("deployment", name),))).tolist()
        for name in "ABCX"
    }
    ids = [image.id for image in images]
    assert kept == {"A": [ids[0], ids[2], ids[4]], "B": [ids[1]], "C": [ids[3]], "X": []}
    asked = select(Image.id).where(to_condition(Filter((("deployment", "A"),))))
    written = asked.compile(session.connection(), compile_kwargs={"literal_binds": True})
    plan = " ".join(session.scalars(text(f"EXPLAIN {written}")))
    assert "hashed SubPlan" in plan
