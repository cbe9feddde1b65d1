"""Pictures over HTTP: the right size, kept by the browser, only for who may see them."""

import hashlib
import io

import PIL.Image
import pytest
from sqlalchemy import func, update

from app.browsing import add_photo_to_tray
from app.security import add_token, get_local_person
from app.tables import Collection, CollectionPerson, LoginSession
from tests.factories import make_collection, make_image_file, make_images, make_person


@pytest.fixture
def image(client, tmp_path):
    """An image of 1,600 x 1,200 pixels whose thumbnails have not been made yet."""
    file = make_image_file(tmp_path / "photos" / "tern.jpg", size=(1_600, 1_200))
    with client.app.state.database.session() as session:
        (image,) = make_images(session, make_collection(session), 1)
        image.path, image.file = "photos/tern.jpg", str(file)
        image.sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
        image.width, image.height = 1_600, 1_200
    return image


@pytest.mark.parametrize(("size", "pixels"), [("small", (320, 240)), ("large", (1280, 960))])
def test_thumbnail_has_its_size_and_may_be_kept(client, image, size, pixels):
    response = client.get(f"/images/{image.id}/{size}")
    assert response.status_code == 200
    assert PIL.Image.open(io.BytesIO(response.content)).size == pixels
    kept = response.headers["cache-control"]
    assert "private" in kept
    assert "immutable" in kept


def test_original_is_the_file_itself_under_its_name(client, image, tmp_path):
    response = client.get(f"/images/{image.id}/original")
    assert response.content == (tmp_path / "photos" / "tern.jpg").read_bytes()
    assert response.headers["content-type"] == "image/jpeg"
    assert response.headers["content-disposition"] == 'inline; filename="tern.jpg"'
    assert response.headers["x-content-type-options"] == "nosniff"


def test_missing_original_says_where_it_was(client, image, tmp_path):
    (tmp_path / "photos" / "tern.jpg").unlink()
    response = client.get(f"/images/{image.id}/original")
    assert response.status_code == 404
    assert "photos/tern.jpg" in response.text
    with client.app.state.database.session() as session:
        get_local_person(session).role = "viewer"
    response = client.get(f"/images/{image.id}/original")
    assert response.status_code == 404
    assert "Ask an admin" in response.text and "photos/" not in response.text


@pytest.mark.parametrize("path", ["/images/999/small", "/images/0/small", f"/images/{2**70}/large"])
def test_image_that_is_not_there_is_not_found(client, path):
    assert client.get(path).status_code == 404


def test_thumbnail_of_another_size_is_not_found(client, image):
    assert client.get(f"/images/{image.id}/huge").status_code == 404


def test_photo_is_for_who_added_it(client):
    state = client.app.state
    file = io.BytesIO()
    PIL.Image.new("RGB", (640, 480), "teal").save(file, "PNG")
    with state.database.session() as session:
        collection = make_collection(session)
        photos = [
            add_photo_to_tray(
                session,
                person,
                collection.id,
                name="a.png",
                data=file.getvalue(),
                settings=state.settings,
                readers=state.readers,
            )
            for person in (get_local_person(session), make_person(session, name="other"))
        ]
    own, foreign = (client.get(f"/photos/{photo.id}/small") for photo in photos)
    assert PIL.Image.open(io.BytesIO(own.content)).size == (320, 240)
    assert foreign.status_code == 404


def test_a_token_is_its_owners_whatever_the_cookies_see(client, image):
    """One statement asks for the login and the image: it must not answer for somebody else."""
    state = client.app.state
    address = f"/images/{image.id}/small"
    with state.database.session() as session:
        admin = get_local_person(session)
        ben = make_person(session, name="Ben", role="ecologist")
        token = add_token(session, ben, "program")
        collection = session.get_one(Collection, image.collection_id)
        collection.made_by_id, collection.open_to = admin.id, "private"
    assert client.get(address).status_code == 200
    as_ben = {"Authorization": f"Bearer {token}"}
    assert client.get(address, headers=as_ben).status_code == 404
    with state.database.session() as session:
        session.get_one(Collection, image.collection_id).open_to = "everyone"
    assert client.get(address, headers=as_ben).status_code == 200


@pytest.mark.parametrize("role", ["admin", "ecologist", "viewer"])
@pytest.mark.parametrize("open_to", ["everyone", "listed", "private"])
@pytest.mark.parametrize("is_listed", [True, False])
def test_a_picture_is_seen_by_whom_its_collection_is_open_to(
    client, image, role, open_to, is_listed
):
    with client.app.state.database.session() as session:
        maker = make_person(session, name="Maker")
        collection = session.get_one(Collection, image.collection_id)
        collection.made_by_id, collection.open_to = maker.id, open_to
        asker = get_local_person(session)
        asker.role = role
        if is_listed:
            session.add(CollectionPerson(collection_id=collection.id, person_id=asker.id))
    sees = role == "admin" or open_to == "everyone" or (open_to == "listed" and is_listed)
    status = 200 if sees else 404
    assert client.get(f"/images/{image.id}/small").status_code == status
    assert client.get(f"/images/{image.id}/original").status_code == status  # asked one by one
    with client.app.state.database.session() as session:
        session.execute(update(LoginSession).values(revoked_at=func.now()))
    signed_out = client.get(f"/images/{image.id}/small", follow_redirects=False)
    assert signed_out.status_code in (303, 401)
