"""Removing images in the browser: choose, see what it means, remove, put back."""

import re

import pytest
from sqlalchemy import select

from app.tables import Image, Person
from tests.factories import make_collection, make_images, make_index


@pytest.fixture
def pond(client):
    state = client.app.state
    with state.database.session() as session:
        collection = make_collection(session)
        images = make_images(session, collection, 70)
        make_index(session, state.settings, images)
    return collection, images


def list_removed(client):
    with client.app.state.database.session() as session:
        query = select(Image.id).where(Image.removed_at.is_not(None)).order_by(Image.id)
        return session.scalars(query).all()


def test_images_are_chosen_removed_and_put_back(client, pond):
    collection, images = pond
    place = f"/collections/{collection.id}"
    page = client.get(f"{place}/browse").text
    assert 'href="?choose=1"' in page
    choosing = client.get(f"{place}/browse?page=2&choose=1").text
    offered = re.findall(r'name="image_ids" value="(\d+)"', choosing.replace("\n", " "))
    assert [int(number) for number in offered] == [image.id for image in images[60:]]
    chosen = [images[61].id, images[62].id]

    asked = client.post(f"{place}/removal", data={"image_ids": chosen}).text
    assert "Remove 2 images?" in asked
    assert "Nobody has answered on them" in asked
    assert list_removed(client) == []
    done = client.post(f"{place}/removed", data={"image_ids": chosen}, follow_redirects=True)
    assert "2 images, the last removed first" in done.text
    assert list_removed(client) == chosen
    assert "68" in client.get(f"{place}/browse").text
    assert f'href="{place}/removed"' in client.get(place).text
    image_page = client.get(f"{place}/images/{chosen[0]}").text
    assert "was removed from the collection" in image_page
    assert "Start a search with this" not in image_page

    client.post(f"{place}/removed/back", data={"image_ids": chosen[:1]})
    assert list_removed(client) == chosen[1:]
    nothing = client.post(f"{place}/removal", data={})
    assert nothing.status_code in (400, 422)
    assert "No image was chosen" in nothing.text


def test_only_an_admin_removes(client, pond):
    collection, images = pond
    place = f"/collections/{collection.id}"
    with client.app.state.database.session() as session:
        session.scalars(select(Person)).one().role = "viewer"
    data = {"image_ids": [images[0].id]}
    for address in ("removal", "removed", "removed/back"):
        assert client.post(f"{place}/{address}", data=data).status_code == 403
    assert list_removed(client) == []
    assert "choose=1" not in client.get(f"{place}/browse").text
    assert 'type="checkbox"' not in client.get(f"{place}/browse?choose=1").text
