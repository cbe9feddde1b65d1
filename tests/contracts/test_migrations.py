"""The migrations build what tables.py says, go down again, and refuse a newer database."""

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from procrastinate.schema import SchemaManager
from sqlalchemy import create_engine, event, inspect, select, text
from sqlalchemy.orm import Session

from app.access import get_collection, get_search
from app.browsing import ORDERS
from app.database import Database, alembic_config, migrate, open_database, psycopg_url
from app.detecting import has_boxes
from app.downloads import ask_for_file
from app.errors import DatabaseNotUsable, NotFound
from app.forgetting import remove_table
from app.metadata import add_table, list_tables
from app.remarks import add_tags, write_note
from app.reporting import current_grid
from app.security import get_local_person, list_tokens
from app.sensitive import count_people_images
from app.settings import Settings
from app.steps import undo
from app.tables import FILE_NAME, Answer, GivenRow, Image, Person, Search, Table
from tests.factories import make_collection, make_images, make_person
from tests.features.test_detours import Hunt


def test_migrations_build_the_tables_of_the_code(migrated_engine):
    def is_comparable(_object, name, kind, *_) -> bool:
        if kind == "table" and name.startswith("procrastinate_"):
            return False  # the queue's own
        of_expressions = ("ix_image_paths_file_name", "ix_images_file_name", "ix_images_taken")
        return kind != "index" or name not in of_expressions  # see below

    with migrated_engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"include_object": is_comparable})
        assert compare_metadata(context, Table.metadata) == []


def test_few_images_are_found_through_the_indexes_of_the_few(migrated_engine):
    """A collection's page asks; an index of all images is read as far as the collection goes."""
    asked = []
    with Session(migrated_engine) as session:
        collection = make_collection(session)
        make_images(session, collection, 200)  # of none at all any index would do
        session.execute(text("ANALYZE images"))
        session.execute(text("SET LOCAL enable_seqscan = off"))

        def note(_connection, _cursor, statement, parameters, *_):
            asked.append((statement, parameters))

        event.listen(migrated_engine, "before_cursor_execute", note)
        count_people_images(session, collection.id)
        has_boxes(session, collection.id)
        event.remove(migrated_engine, "before_cursor_execute", note)
        cursor = session.connection().connection.cursor()
        plans = [
            " ".join(line for (line,) in cursor.execute(f"EXPLAIN {statement}", parameters))
            for statement, parameters in asked
        ]
    people, boxes = plans
    assert "ix_images_removed" in people
    assert "ix_images_boxed" in boxes


def test_what_names_a_row_that_goes_with_many_is_found_through_an_index(migrated_engine):
    """Deleting a search of 100 rounds read the 100,000 of all searches 100 times."""
    query = """
        SELECT k.conrelid::regclass || '.' || a.attname FROM pg_constraint k
        JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = k.conkey[1]
        WHERE k.contype = 'f' AND k.confrelid::regclass::text IN
            ('actions', 'detours', 'examples', 'images', 'pools', 'rounds', 'searches', 'seats')
        AND NOT EXISTS (SELECT FROM pg_index i
            WHERE i.indrelid = k.conrelid AND i.indkey[0] = k.conkey[1])
    """
    with migrated_engine.connect() as connection:
        # There are few searches, and each round writes this one.
        assert list(connection.scalars(text(query))) == ["searches.current_round_id"]


def test_files_are_found_by_name_through_an_index(migrated_engine):
    with migrated_engine.begin() as connection:
        connection.execute(text("SET LOCAL enable_seqscan = off"))
        plan = connection.scalars(
            text(f"EXPLAIN SELECT 1 FROM image_paths WHERE collection_id = 1 AND {FILE_NAME} = 'a'")
        ).all()
    assert any("ix_image_paths_file_name" in line for line in plan)


@pytest.mark.parametrize(
    ("order", "index"),
    [
        ("path", "ix_images_collection_id_path_id"),
        ("name", "ix_images_file_name"),
        ("taken", "ix_images_taken"),
    ],
)
def test_images_are_put_in_order_by_an_index(migrated_engine, order, index):
    page = select(Image.id).where(Image.collection_id == 1).order_by(*ORDERS[order].sort())
    compiled = page.compile(migrated_engine, compile_kwargs={"literal_binds": True})
    with migrated_engine.begin() as connection:
        for slower in ("seqscan", "sort"):
            connection.execute(text(f"SET LOCAL enable_{slower} = off"))
        plan = connection.scalars(text(f"EXPLAIN {compiled}")).all()
    assert any(index in line for line in plan), plan
    assert not any("Sort" in line for line in plan), plan


def test_migrations_go_up_down_and_up_again(empty_database_url):
    engine = create_engine(psycopg_url(empty_database_url))
    config = alembic_config()
    migrate(engine)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
    assert inspect(engine).get_table_names() == ["alembic_version"]
    with engine.connect() as connection:
        left = "SELECT count(*) FROM pg_proc WHERE proname LIKE 'procrastinate%'"
        assert connection.scalar(text(left)) == 0
    migrate(engine)
    own = {name for name in inspect(engine).get_table_names() if "procrastinate_" not in name}
    assert own == {"alembic_version", *Table.metadata.tables}
    engine.dispose()


def describe_queue(engine) -> dict[str, list]:
    """Columns, functions, triggers, indexes and types of the queue's tables."""
    queries = {
        "columns": "SELECT table_name, column_name, data_type, is_nullable, column_default "
        "FROM information_schema.columns WHERE table_name LIKE 'procrastinate%'",
        "functions": "SELECT proname, prosrc FROM pg_proc WHERE proname LIKE 'procrastinate%'",
        "triggers": "SELECT tgname, pg_get_triggerdef(oid) FROM pg_trigger "
        "WHERE tgname LIKE 'procrastinate%'",
        "indexes": "SELECT indexname, indexdef FROM pg_indexes "
        "WHERE tablename LIKE 'procrastinate%'",
        "labels": "SELECT enumlabel FROM pg_enum",
    }
    with engine.connect() as connection:
        return {
            what: sorted(str(row) for row in connection.execute(text(query)))
            for what, query in queries.items()
        }


def test_the_queue_has_the_schema_that_its_library_expects(migrated_engine, empty_database_url):
    engine = create_engine(psycopg_url(empty_database_url))
    with engine.begin() as connection:
        connection.connection.driver_connection.execute(SchemaManager.get_schema())
    assert describe_queue(migrated_engine) == describe_queue(engine)
    engine.dispose()


def test_table_of_before_it_was_known_what_each_says_can_be_removed(own_database):
    with own_database.session() as session:
        collection, person = make_collection(session), make_person(session)
        (image,) = make_images(session, collection, 1)
        rows = f"sha256,depth,site\n{image.sha256},3.5,A\n".encode()
        add_table(session, collection.id, name="pond.csv", data=rows, person=person)
        image_id, collection_id = image.id, collection.id
    config = alembic_config()
    with own_database.bind.engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "0044")
        command.upgrade(config, "head")
    with own_database.session() as session:
        (table,) = list_tables(session, collection_id)
        assert table.columns == ["depth", "site"]
        (row,) = session.scalars(select(GivenRow))
        assert (row.image_id, row.said) == (image_id, {"depth": "3.5", "site": "A"})
        person = session.scalars(select(Person)).first()
        remove_table(session, collection_id, table.id, person=person)
        session.expire_all()
        assert session.get_one(Image, image_id).given is None


def test_search_with_a_detour_taken_back_survives_going_down_and_up(own_database, settings):
    with own_database.session() as session:
        hunt = Hunt(session, settings)
        hunt.submit()
        hunt.take("absence", 20)
        hunt.submit()
        hunt.undo()
        hunt.undo()
        hunt.submit()
        shown = hunt.shown()
        answers = session.scalars(select(Answer.value).order_by(Answer.id)).all()
        search_id, person_id = hunt.search.id, hunt.person.id
        # What there was no place for then.
        add_tags(session, hunt.person, hunt.images[0], "wet")
        write_note(session, hunt.person, hunt.search, "For the report")
        ask_for_file(session, hunt.person, hunt.search, "search.rarefind")
    config = alembic_config()
    with own_database.bind.engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "0004")
        command.upgrade(config, "head")
    with own_database.session() as session:
        search, person = session.get_one(Search, search_id), session.get_one(Person, person_id)
        assert [card.image_id for card in current_grid(session, search, person).cards] == shown
        assert session.scalars(select(Answer.value).order_by(Answer.id)).all() == answers
        assert undo(session, search, person=person, gesture_key=None) is not None


def test_people_of_before_keep_everything_and_can_be_told_apart(empty_database_url):
    engine = create_engine(psycopg_url(empty_database_url))
    config = alembic_config()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0007")
        connection.execute(
            text("INSERT INTO people (name, role) VALUES ('ada', 'admin'), ('Ada', 'ecologist')")
        )
        connection.execute(
            text("INSERT INTO api_tokens (person_id, name, token_sha256) VALUES (1, 'x', 'y')")
        )
        connection.execute(
            text("INSERT INTO collections (name, source, made_by_id) VALUES ('Pond', '/x', 1)")
        )
        connection.execute(
            text(
                "INSERT INTO searches (collection_id, owner_id, target_name, embedder, strategy, "
                "round_size, seed) VALUES (1, 1, 'heron', 'e', 'random', 6, 1)"
            )
        )
        command.upgrade(config, "head")
    database = Database(engine)
    with database.session() as session:
        person = get_local_person(session)
        assert (person.id, person.name, person.role) == (1, "ada", "admin")
        assert get_search(session, person, 1).target_name == "heron"
        assert [token.scope for token in list_tokens(session, person)] == ["search"]
        other = session.get_one(Person, 2)
        assert (other.name, get_collection(session, other, 1).name) == ("Ada 2", "Pond")
        with pytest.raises(NotFound):
            get_search(session, other, 1)
    engine.dispose()


def test_what_is_sensitive_goes_up_and_down_with_what_is_there(empty_database_url):
    engine = create_engine(psycopg_url(empty_database_url))
    config = alembic_config()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0030")
        connection.execute(text("INSERT INTO collections (name, source) VALUES ('Pond', '/x')"))
        connection.execute(
            text(
                "INSERT INTO images (collection_id, sha256, path, file, size_bytes, format, width, "
                "height) VALUES (1, 'a', 'a.jpg', '/a.jpg', 1, 'JPEG', 9, 9)"
            )
        )
        connection.execute(
            text(
                "INSERT INTO given_columns (collection_id, name, kind, position) VALUES "
                "(1, 'decimalLatitude', 'number', 0), (1, 'LON', 'number', 1), "
                "(1, 'along', 'text', 2), (1, 'latency', 'number', 3), "
                "(1, 'GPSLatitude', 'number', 4)"
            )
        )
        command.upgrade(config, "head")
        held = text("SELECT name FROM given_columns WHERE holds_place ORDER BY position")
        assert connection.scalars(held).all() == ["decimalLatitude", "LON", "GPSLatitude"]
        connection.execute(text("UPDATE images SET shows_people = true, removed_at = now()"))
        connection.execute(text("INSERT INTO boxes VALUES (1, 0, 'animal', 0.9, 0, 0, 0.5, 0.5)"))
        connection.execute(text("UPDATE images SET boxed_at = now(), was_removed = true"))
        command.downgrade(config, "0036")
        command.upgrade(config, "head")
        # Files that were made before this was known may hold what is hidden.
        assert connection.scalar(text("SELECT count(guarded_at) FROM collections")) == 1
        assert connection.scalar(text("SELECT was_removed FROM images")) is False
        command.downgrade(config, "0030")
        # An earlier version knows no trust: what was hidden stays removed.
        assert connection.scalar(text("SELECT count(removed_at) FROM images")) == 1
        command.upgrade(config, "head")
    engine.dispose()


def test_newer_database_is_refused_and_left_as_it_is(empty_database_url, tmp_path):
    engine = create_engine(psycopg_url(empty_database_url))
    migrate(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(DatabaseNotUsable, match=r"at version 9999.*newer"):
        open_database(Settings(home=tmp_path, database_url=empty_database_url))
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT version_num FROM alembic_version")) == "9999"
        assert connection.scalar(text("SELECT count(*) FROM people")) == 0
    engine.dispose()
