"""Backups: of one moment, only what is new, never taken for whole before they are; and back."""

import os
import subprocess
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from app import searching
from app.backing_up import back_up, restore_backup
from app.database import RESTORING, Database, open_database
from app.errors import BackupNotMade, DatabaseNotUsable, DiskFull, RestoreRefused
from app.exports.bundles import repeat_rounds
from app.importing import get_thumbnail, photo_path, read_photo
from app.indexing import LoadedEmbedders, OpenIndexes
from app.reading import THUMBNAIL_SIDES, thumbnail_path, write_whole
from app.security import get_local_person, issue_sign_in_link
from app.settings import Settings
from app.tables import Image, LoginSession, Photo, Round, Search, SignInLink
from app.workers import Readers
from tests.factories import make_collection, make_image_file, make_images, make_index

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)


@dataclass
class Server:
    """A data folder and a database with a collection, a photo and a search of some rounds."""

    database: Database
    settings: Settings

    def submit(self) -> None:
        with self.database.session() as session:
            search = session.scalars(select(Search)).one()
            images = session.get_one(Round, search.current_round_id).images
            searching.submit_answers(
                session,
                search,
                person=get_local_person(session),
                round_id=search.current_round_id,
                values={place.image_id: "yes" for place in images[:2]},
                rest_are_no=True,
                gesture_key=None,
                indexes=OpenIndexes(self.settings),
            )

    def back_up(self, folder: Path, *, during=lambda _done: None):
        def progress(done: int, _total: int) -> None:
            during(done)

        return back_up(self.settings, folder, now=NOW, progress=progress)


@pytest.fixture
def server(own_database, own_database_url, settings, readers, tmp_path):
    settings = settings.model_copy(update={"database_url": own_database_url})
    server = Server(own_database, settings)
    with own_database.session() as session:
        person = get_local_person(session)
        issue_sign_in_link(session, person, base_url="http://here", settings=settings)
        images = make_images(session, make_collection(session), 40)
        for number, image in enumerate(images):
            original = settings.home / "originals" / "1" / image.sha256[:2] / image.sha256
            image.file = str(make_image_file(original, number))
            for side in THUMBNAIL_SIDES:
                write_whole(
                    thumbnail_path(settings.home, image.sha256, image.width, image.height, side),
                    f"{number} at {side}".encode(),
                )
        make_index(session, settings, images)
        read = read_photo(
            make_image_file(tmp_path / "1.jpg").read_bytes(), settings=settings, readers=readers
        )
        session.add(
            Photo(
                person_id=person.id,
                name="heron.jpg",
                sha256=read.sha256,
                width=read.width,
                height=read.height,
            )
        )
        searching.open_search(
            session,
            person=person,
            collection_id=images[0].collection_id,
            target_name="Grey heron",
            round_size=6,
            image_ids=[images[0].id],
            photo_ids=[],
            indexes=OpenIndexes(settings),
            embedders=LoadedEmbedders(settings, Readers(settings)),
            settings=settings,
        )
    for _ in range(3):
        server.submit()
    return server


@pytest.fixture
def target(tmp_path, empty_database_url):
    """Where nothing is yet."""
    return Settings(home=tmp_path / "other" / "home", database_url=empty_database_url, workers=1)


def restore(folder: Path, target: Settings):
    return restore_backup(target, folder, progress=lambda _done, _total: None)


def shown(session: Session) -> list[tuple[int, float]]:
    search = session.scalars(select(Search)).one()
    images = session.get_one(Round, search.current_round_id).images
    return [(place.image_id, place.score) for place in images]


def answers(session: Session) -> list[tuple]:
    query = text("SELECT id, action_id, image_id, value FROM answers ORDER BY id")
    return [tuple(row) for row in session.execute(query)]


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_restored_elsewhere_all_works_as_at_one_moment(server, target, tmp_path, readers):
    with server.database.session() as session:
        before, answered = shown(session), answers(session)

    def work_goes_on(done: int) -> None:
        if done == 3:
            server.submit()

    made = server.back_up(tmp_path / "backup", during=work_goes_on)
    assert made.missing == [] and made.manifest.outside_count == 0
    assert made.manifest.counts["answers"] == len(answered)
    with server.database.session() as session:
        assert len(answers(session)) > len(answered), "somebody answered meanwhile"
    (server.settings.home).rename(tmp_path / "gone")  # what it needs must not come from there

    restore(tmp_path / "backup", target)
    with closing(open_database(target)) as database, database.session() as session:
        assert shown(session) == before
        assert answers(session) == answered
        search = session.scalars(select(Search)).one()
        indexes = OpenIndexes(target)
        repeated = repeat_rounds(session, search, indexes, at_most=99)
        assert (repeated.same, repeated.total) == (4, 4)
        for image in session.scalars(select(Image)):
            assert Path(image.file).is_relative_to(target.home) and Path(image.file).is_file()
            thumbnail = get_thumbnail(image, 320, settings=target, readers=readers)
            old = tmp_path / "gone" / thumbnail.relative_to(target.home)
            assert thumbnail.read_bytes() == old.read_bytes()
        photo = session.scalars(select(Photo)).one()
        assert photo_path(photo.sha256, settings=target).is_file()
        # A way in must not come back with a backup.
        assert session.scalar(select(func.count()).select_from(SignInLink)) == 0
        assert session.scalar(select(func.count()).select_from(LoginSession)) == 0
    with closing(open_database(target)) as database:
        restored = Server(database, target)
        restored.submit()
        again = restored.back_up(tmp_path / "backup")
    assert again.copied_count == 1, "only the database is another one"
    assert not (target.home / RESTORING).exists()


def test_second_backup_copies_only_what_is_new_and_lets_go_of_the_old(server, tmp_path):
    folder = tmp_path / "backup"
    first = server.back_up(folder)
    assert first.copied_count > 40 * 3
    server.submit()
    before = files_of(folder)
    second = server.back_up(folder)
    new = set(files_of(folder)) - set(before)
    assert second.copied_count == len(new) == 1, "the list is the same, the database another"
    gone = set(before) - set(files_of(folder))
    assert gone == {f"files/{(old := first.manifest.database.sha256)[:2]}/{old}"}
    assert second.manifest.file_count == first.manifest.file_count


def test_interrupted_backup_is_none_and_leaves_the_last_one_whole(server, target, tmp_path):
    folder = tmp_path / "backup"

    def cut(done: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        server.back_up(folder, during=cut)
    with pytest.raises(RestoreRefused, match="no whole backup"):
        restore(folder, target)
    assert not target.home.exists()
    server.back_up(folder)
    with server.database.session() as session:
        before = answers(session)
    server.submit()
    (server.settings.home / "thumbnails").rename(tmp_path / "away")  # the next would be smaller
    with pytest.raises(KeyboardInterrupt):
        server.back_up(folder, during=cut)
    restore(folder, target)
    with closing(open_database(target)) as database, database.session() as session:
        assert answers(session) == before
    assert len(list((target.home / "thumbnails").glob("*/*"))) == 81


def test_torn_file_of_an_interrupted_backup_is_copied_anew(server, target, tmp_path):
    def tear(done: int) -> None:
        if done == 9:
            for path in (tmp_path / "backup" / "files").glob("*/*"):
                path.write_bytes(bytes(path.stat().st_size))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        server.back_up(tmp_path / "backup", during=tear)
    server.back_up(tmp_path / "backup")
    restore(tmp_path / "backup", target)


@pytest.mark.parametrize("damage", ["changed", "gone"])
def test_damaged_backup_is_refused_before_anything_is_touched(server, target, tmp_path, damage):
    server.back_up(tmp_path / "backup")
    victim = max((tmp_path / "backup" / "files").glob("*/*"), key=lambda path: path.name)
    if damage == "gone":
        victim.unlink()
    else:
        data = bytearray(victim.read_bytes())
        data[len(data) // 2] ^= 1
        victim.write_bytes(data)
    with pytest.raises(RestoreRefused, match=victim.name):
        restore(tmp_path / "backup", target)
    assert not any(target.home.iterdir())


def test_only_an_empty_place_takes_a_backup(server, target, tmp_path):
    folder = tmp_path / "backup"
    server.back_up(folder)
    with pytest.raises(RestoreRefused, match=r"database of DATABASE_URL is not empty"):
        restore(folder, target.model_copy(update={"database_url": server.settings.database_url}))
    (target.home / "weights").mkdir(parents=True, exist_ok=True)
    (target.home / "notes.txt").write_text("mine")
    with pytest.raises(RestoreRefused, match=r"not empty: it holds notes\.txt"):
        restore(folder, target)
    (target.home / "notes.txt").unlink()
    restore(folder, target)


def test_half_restored_folder_is_not_opened(server, target):
    target.home.mkdir(parents=True)
    (target.home / RESTORING).touch()
    with pytest.raises(DatabaseNotUsable, match="restore again"):
        open_database(target)
    with pytest.raises(DatabaseNotUsable, match="restore again"):
        Server(server.database, target).back_up(target.home.parent / "backup")


def test_backup_of_a_newer_version_is_refused(server, target, tmp_path):
    with server.database.session() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    server.back_up(tmp_path / "backup")
    with pytest.raises(RestoreRefused, match="newer version"):
        restore(tmp_path / "backup", target)


def test_older_tables_are_backed_up_as_they_are(server, tmp_path):
    with server.database.session() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '0035'"))
    assert server.back_up(tmp_path / "backup").manifest.revision == "0035"
    with server.database.session() as session:
        assert session.scalar(text("SELECT version_num FROM alembic_version")) == "0035"


def test_nothing_is_no_backup(server, settings, target, tmp_path):
    server.settings = target
    with pytest.raises(BackupNotMade, match="no tables"):
        server.back_up(tmp_path / "backup")
    server.settings = settings.model_copy(update={"home": tmp_path / "nowhere"})
    with pytest.raises(BackupNotMade, match="RAREFIND_HOME"):
        server.back_up(tmp_path / "backup")
    assert not (tmp_path / "nowhere").exists() and not (tmp_path / "backup").exists()


def test_folder_that_is_no_place_for_a_backup_is_refused(server, tmp_path):
    other = tmp_path / "mine"
    make_image_file(other / "1.jpg")
    with pytest.raises(BackupNotMade, match="holds other files"):
        server.back_up(other)
    with pytest.raises(BackupNotMade, match="lost with it"):
        server.back_up(server.settings.home / "backup")
    with pytest.raises(BackupNotMade, match="is a file"):
        server.back_up(other / "1.jpg")
    server.back_up(tmp_path / "backup")
    with server.database.session() as session:
        session.execute(text("UPDATE people SET made_at = made_at - interval '1 day'"))
    with pytest.raises(BackupNotMade, match="another Rarefind"):
        server.back_up(tmp_path / "backup")


def test_full_or_locked_disk_is_a_sentence_and_the_last_backup_stays(server, tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a small disk")
    try:
        with pytest.raises(DiskFull, match="Make room there"):
            server.back_up(folder)
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        with pytest.raises(BackupNotMade, match="Read-only"):
            server.back_up(folder)
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_what_is_gone_from_the_data_folder_is_told(server, tmp_path):
    with server.database.session() as session:
        image = session.scalars(select(Image).order_by(Image.id)).first()
        Path(image.file).unlink()
        elsewhere = session.scalars(select(Image).order_by(Image.id.desc())).first()
        elsewhere.file = "/photos/pond/1.jpg"
    made = server.back_up(tmp_path / "backup")
    assert made.missing == [str(Path(image.file).relative_to(server.settings.home))]
    assert made.manifest.outside_count == 1


def test_two_backups_at_once_are_refused(server, tmp_path):
    def another(done: int) -> None:
        if done == 1:
            with pytest.raises(BackupNotMade, match="under way"):
                server.back_up(tmp_path / "second")

    server.back_up(tmp_path / "backup", during=another)
    server.back_up(tmp_path / "second")


def test_no_password_of_the_database_is_shown(settings):
    url = "postgresql://rarefind:geheim@127.0.0.1:9/rarefind"
    with pytest.raises(DatabaseNotUsable) as refused:
        open_database(settings.model_copy(update={"database_url": url}))
    assert "geheim" not in str(refused.value) and "127.0.0.1:9" in str(refused.value)
