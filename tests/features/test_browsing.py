"""Pages, samples, names, likeness and the examples tray, on real tables and a real index."""

import hashlib
import io
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app import browsing
from app.access import get_photo
from app.errors import BadInput, NoIndexYet, NotFound, RefusedPhoto
from app.filtering import Filter
from app.indexing import LoadedEmbedders, OpenIndexes
from app.tables import Collection, ImagePath, Photo, TrayItem
from app.workers import Readers
from tests.factories import (
    make_collection,
    make_images,
    make_index,
    make_person,
    make_picture,
    make_vectors,
)


@pytest.fixture
def collection(session: Session) -> Collection:
    return make_collection(session)


def make_named(session, collection, paths):
    """Images of these paths, with the checksums that real files would have."""
    images = make_images(session, collection, len(paths))
    for image, path in zip(images, paths, strict=True):
        image.path = path
        image.sha256 = hashlib.sha256(f"{collection.id} {path}".encode()).hexdigest()
        add_path(session, image, path)
    session.flush()
    return images


def add_path(session, image, path):
    session.add(
        ImagePath(
            collection_id=image.collection_id,
            image_id=image.id,
            path=path,
            size_bytes=1_000,
            modified_ns=1,
        )
    )
    session.flush()


def jpeg(number=0):
    file = io.BytesIO()
    make_picture(number).save(file, "JPEG")
    return file.getvalue()


def test_pages_hold_every_image_once_in_the_order_of_paths(session, collection):
    paths = [f"site-{number % 7}/IMG_{number:04}.jpg" for number in range(130)]
    make_named(session, collection, paths)
    make_named(session, make_collection(session, name="Lake"), ["site-0/IMG_0000.jpg"])
    pages = [browsing.list_images(session, collection.id, page=page) for page in (1, 2, 3)]
    shown = [image.path for page in pages for image in page.images]
    assert shown == sorted(paths)
    assert [(page.page, page.pages, page.total) for page in pages] == [
        (1, 3, 130),
        (2, 3, 130),
        (3, 3, 130),
    ]


def test_page_past_the_end_is_the_last_one_and_an_empty_collection_has_one(session, collection):
    assert browsing.list_images(session, collection.id, page=5).pages == 1
    make_named(session, collection, [f"{number:03}.jpg" for number in range(61)])
    last = browsing.list_images(session, collection.id, page=10**9)
    assert (last.page, [image.path for image in last.images]) == (2, ["060.jpg"])


def test_every_image_is_on_the_page_it_is_said_to_be_on(session, collection):
    images = make_named(session, collection, [f"{number:03}.jpg" for number in range(121)])
    for place in (0, 59, 60, 119, 120):
        page = browsing.find_page_of(session, images[place])
        on_page = browsing.list_images(session, collection.id, page=page).images
        assert images[place] in on_page


def test_images_come_in_each_order_with_the_right_neighbours_and_page(session, collection):
    images = make_named(session, collection, [f"{n % 3}/IMG_{125 - n:03}.jpg" for n in range(125)])
    for place, image in enumerate(images):  # a time for two of three, each of them twice
        day = datetime(2026, 5, 1) + timedelta(days=(place * 37 % 125) // 2)
        image.captured_at = day if place % 3 else None
    session.flush()
    make_named(session, make_collection(session, name="Lake"), ["0/IMG_000.jpg"])
    expected = {
        "path": sorted(images, key=lambda one: one.path),
        "name": sorted(images, key=lambda one: one.path.split("/")[1]),
        "taken": sorted(images, key=lambda one: (one.captured_at or datetime.max, one.id)),
        "added": images[::-1],
    }
    assert expected.keys() == browsing.ORDERS.keys()
    for order, in_order in expected.items():
        pages = [
            browsing.list_images(session, collection.id, page=page, order=order)
            for page in (1, 2, 3)
        ]
        assert [image.id for page in pages for image in page.images] == [one.id for one in in_order]
        for place in (0, 1, 59, 60, 83, 84, 123, 124):
            told = browsing.describe_image(session, collection.id, in_order[place].id, order=order)
            around = [None, *(one.id for one in in_order), None][place : place + 3]
            assert [told.previous_id, in_order[place].id, told.next_id] == around
            assert told.page == place // 60 + 1


def test_time_is_an_order_only_where_it_is_known_and_paths_where_folders_are_seen(
    session, collection
):
    image, _ = make_named(session, collection, ["a/1.jpg", "b/0.jpg"])

    def orders(with_folders):
        return browsing.list_orders(session, collection.id, with_folders=with_folders)

    image.captured_at = None
    session.flush()
    assert orders(with_folders=True) == ["path", "added"]
    image.captured_at = datetime(2026, 5, 1)
    session.flush()
    assert orders(with_folders=False) == ["name", "taken", "added"]


def test_folders_are_listed_level_by_level_with_what_lies_in_and_under_them(session, collection):
    paths = ["top.jpg", "a_b/1.jpg", "a_b/x/2.jpg", "a_b/x/y/3.jpg", "aXb/x/4.jpg", "c/5.jpg"]
    images = make_named(session, collection, paths)
    make_named(session, make_collection(session, name="Lake"), ["a_b/1.jpg"])
    images[-1].removed_at = datetime.now(UTC)
    session.flush()

    def inside(folder):
        return browsing.list_subfolders(session, collection.id, folder)

    assert sorted(inside("")) == [("aXb", 1), ("a_b", 3)]
    assert inside("a_b") == [("x", 2)]
    assert inside("a_b/x") == [("y", 1)]
    assert inside("a_b/x/y") == inside("a") == []


def test_sample_is_repeatable_differs_by_seed_and_holds_no_image_twice(session, collection):
    make_named(session, collection, [f"{number:04}.jpg" for number in range(500)])
    make_named(session, make_collection(session, name="Lake"), ["x.jpg"])

    def ids(seed):
        sample = browsing.sample_images(session, collection.id, seed=seed)
        assert {image.collection_id for image in sample} == {collection.id}
        return [image.id for image in sample]

    samples = [ids(seed) for seed in range(30)]
    assert all(len(set(sample)) == browsing.IMAGES_PER_PAGE for sample in samples)
    assert ids(3) == samples[3]
    assert len({tuple(sample) for sample in samples}) > 20
    # Thirty samples of 60 from 500 reach nearly every image: it is no fixed part of the order.
    assert len(set().union(*samples)) > 400


def test_sample_of_a_small_collection_is_all_of_it(session, collection):
    images = make_named(session, collection, [f"{number}.jpg" for number in range(9)])
    for seed in range(5):
        sample = browsing.sample_images(session, collection.id, seed=seed)
        assert sorted(image.id for image in sample) == [image.id for image in images]


def test_exact_name_is_found_in_any_folder_and_any_case(session, collection):
    images = make_named(
        session, collection, ["a/IMG_1.jpg", "b/IMG_1.jpg", "b/IMG_10.jpg", "c/xIMG_1.jpg"]
    )
    found = browsing.find_by_name(session, collection.id, " img_1.JPG ")
    assert (found.kind, found.images) == ("exact", images[:2])
    whole = browsing.find_by_name(session, collection.id, "b/IMG_1.jpg")
    assert (whole.kind, whole.images) == ("exact", [images[1]])


def test_duplicate_is_found_by_its_other_name(session, collection):
    images = make_named(session, collection, ["a/IMG_1.jpg", "a/IMG_2.jpg"])
    add_path(session, images[0], "copies/holiday.jpg")
    found = browsing.find_by_name(session, collection.id, "holiday.jpg")
    assert (found.kind, found.images, found.total) == ("exact", [images[0]], 1)


def test_part_of_a_name_is_taken_literally_and_folders_do_not_count(session, collection):
    images = make_named(session, collection, ["heron/a%1.jpg", "heron/ab1.jpg", "x/my_heron.jpg"])
    assert browsing.find_by_name(session, collection.id, "%1").images == [images[0]]
    assert browsing.find_by_name(session, collection.id, "heron").images == [images[2]]
    assert browsing.find_by_name(session, collection.id, "heron/a").images == images[:2]


def test_unknown_name_leads_to_the_nearest_that_begins_alike(session, collection):
    images = make_named(session, collection, ["IMG_0455.jpg", "IMG_0459.jpg", "ZZZ_1.jpg"])
    for name, nearest in (("IMG_0456.png", 0), ("img_0458.png", 0), ("IMG_046.png", 1)):
        found = browsing.find_by_name(session, collection.id, name)
        assert (found.kind, found.images) == ("nearest", [images[nearest]]), name


@pytest.mark.parametrize("name", ["", "  ", "/", "\x00"])
def test_no_name_finds_nothing(session, collection, name):
    make_named(session, collection, ["a.jpg"])
    assert browsing.find_by_name(session, collection.id, name).kind == "none"


def test_suggestions_begin_with_what_begins_alike(session, collection):
    make_named(session, collection, ["1/blue heron.jpg", "2/heron 2.jpg", "3/heron 1.jpg", "x.jpg"])
    suggested = browsing.suggest_names(session, collection.id, "Her")
    assert suggested == ["3/heron 1.jpg", "2/heron 2.jpg"]
    assert browsing.suggest_names(session, collection.id, "UE H") == ["1/blue heron.jpg"]
    assert browsing.suggest_names(session, collection.id, "h") == []


def test_image_knows_its_neighbours_and_every_path(session, collection):
    images = make_named(session, collection, ["a.jpg", "b.jpg", "c.jpg"])
    add_path(session, images[1], "again/b.jpg")
    middle = browsing.describe_image(session, collection.id, images[1].id)
    assert middle.paths == ["again/b.jpg", "b.jpg"]
    assert (middle.previous_id, middle.next_id) == (images[0].id, images[2].id)
    assert browsing.describe_image(session, collection.id, images[0].id).previous_id is None
    assert browsing.describe_image(session, collection.id, images[2].id).next_id is None


def test_image_of_another_collection_is_not_found(session, collection):
    (foreign,) = make_images(session, make_collection(session, name="Lake"), 1)
    with pytest.raises(NotFound):
        browsing.describe_image(session, collection.id, foreign.id)


def find_similar(session, settings, collection, like):
    return browsing.find_similar(
        session,
        collection.id,
        like,
        indexes=OpenIndexes(settings),
        embedders=LoadedEmbedders(settings, Readers(settings)),
        settings=settings,
    )


def test_similar_images_are_the_nearest_without_the_image_itself(session, settings, collection):
    images = make_images(session, collection, 80)
    vectors = make_vectors(80)
    make_index(session, settings, images, vectors)
    found = find_similar(session, settings, collection, images[5])
    similarities = vectors @ vectors[5]
    order = [row for row in np.argsort(-similarities, kind="stable") if row != 5]
    assert [image.id for image, _ in found] == [images[row].id for row in order[:60]]
    assert [similarity for _, similarity in found] == pytest.approx(
        similarities[order[:60]].tolist(), abs=1e-5
    )


def test_similar_needs_an_index_with_the_image_in_it(session, settings, collection):
    images = make_images(session, collection, 12)
    with pytest.raises(NoIndexYet):
        find_similar(session, settings, collection, images[0])
    make_index(session, settings, images[:11])
    with pytest.raises(BadInput):
        find_similar(session, settings, collection, images[11])


def test_tray_keeps_the_order_of_picking_and_picks_once(session, collection):
    person = make_person(session)
    images = make_images(session, collection, 3)
    for place in (2, 0, 2):
        browsing.add_image_to_tray(session, person, collection.id, images[place].id)
    tray = browsing.list_tray(session, person, collection.id)
    assert [item.image_id for item in tray] == [images[2].id, images[0].id]
    browsing.remove_from_tray(session, person, collection.id, image_ids=[images[2].id, 999])
    assert [item.image_id for item in browsing.list_tray(session, person, collection.id)] == [
        images[0].id
    ]


def test_trays_of_people_and_collections_are_their_own(session, collection):
    person, other = make_person(session), make_person(session, name="other")
    lake = make_collection(session, name="Lake")
    (image,) = make_images(session, collection, 1)
    browsing.add_image_to_tray(session, person, collection.id, image.id)
    assert browsing.list_tray(session, other, collection.id) == []
    assert browsing.list_tray(session, person, lake.id) == []
    browsing.remove_from_tray(session, other, collection.id, image_ids=[image.id])
    assert len(browsing.list_tray(session, person, collection.id)) == 1
    with pytest.raises(NotFound):
        browsing.add_image_to_tray(session, person, lake.id, image.id)


def test_photo_is_kept_once_for_each_person(session, settings, readers, collection):
    person, other = make_person(session), make_person(session, name="other")
    for who, name in ((person, "first.jpg"), (person, "again.jpg"), (other, "mine.jpg")):
        browsing.add_photo_to_tray(
            session, who, collection.id, name=name, data=jpeg(), settings=settings, readers=readers
        )
    assert session.scalar(select(func.count()).select_from(Photo)) == 2
    assert session.scalar(select(func.count()).select_from(TrayItem)) == 2
    (item,) = browsing.list_tray(session, person, collection.id)
    assert (item.photo.name, item.photo.width, item.photo.height) == ("first.jpg", 60, 40)
    assert get_photo(session, person, item.photo_id) is item.photo
    with pytest.raises(NotFound):
        get_photo(session, other, item.photo_id)
    browsing.remove_from_tray(session, person, collection.id, photo_ids=[item.photo_id])
    assert browsing.list_tray(session, person, collection.id) == []


def test_refused_photo_is_named(session, settings, readers, collection):
    person = make_person(session)
    with pytest.raises(RefusedPhoto, match=r"^notes\.txt: "):
        browsing.add_photo_to_tray(
            session,
            person,
            collection.id,
            name="notes.txt",
            data=b"hello",
            settings=settings,
            readers=readers,
        )
    assert browsing.list_tray(session, person, collection.id) == []


@pytest.mark.parametrize("order", ["path", "name", "taken", "added"])
def test_few_images_are_found_before_they_are_sorted_and_stand_as_many_do(
    session, monkeypatch, order
):
    collection = make_collection(session)
    images = make_images(session, collection, 150)
    rng = np.random.default_rng(0)
    for image, number in zip(images, rng.permutation(150).tolist(), strict=True):
        image.path = f"{'AB'[number % 2]}/{number // 2:03}.jpg"
        image.captured_at = datetime(2026, 1, 1) + timedelta(days=number) if number % 3 else None
    images[0].removed_at = datetime(2026, 1, 1)
    session.flush()
    chosen = Filter((("folder", "A"),))

    def walk():
        for kept in (Filter(), chosen):
            for page in (1, 2, 3):
                how = {"page": page, "order": order, "chosen": kept}
                yield [one.id for one in browsing.list_images(session, collection.id, **how).images]

    found = list(walk())
    monkeypatch.setattr(browsing, "FEW", -1)
    assert list(walk()) == found
    assert len({image_id for page in found[:3] for image_id in page}) == 149
