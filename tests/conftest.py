"""Real PostgreSQL for every test: a database built by the migrations, rolled back after each."""

import os
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, NullPool, create_engine, make_url, text
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from app.database import Database, migrate, psycopg_url, start_embedded_server
from app.security import get_local_person, issue_sign_in_link
from app.settings import Settings
from app.workers import Readers
from tests.stand_ins import use_hub

# The one row that the migrations leave is that of their own table.
EMPTYING = """
DO $$
DECLARE name text;
BEGIN
    SET LOCAL session_replication_role = replica;
    FOR name IN
        SELECT format('%I', tablename) FROM pg_tables
        WHERE schemaname = 'public' AND tablename <> 'alembic_version'
    LOOP
        EXECUTE 'DELETE FROM ' || name;
    END LOOP;
    FOR name IN
        SELECT format('%I', sequencename) FROM pg_sequences
        WHERE schemaname = 'public' AND last_value IS NOT NULL
    LOOP
        EXECUTE 'ALTER SEQUENCE ' || name || ' RESTART';
    END LOOP;
END $$
"""
SHAPE = """
SELECT
    (SELECT string_agg(version_num, ' ') FROM alembic_version),
    (SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace),
    (SELECT count(*) FROM pg_trigger),
    (SELECT count(*) FROM pg_proc WHERE pronamespace = 'public'::regnamespace)
"""
SHARED_DATA = Path(__file__).parent.parent.parent / "shared" / "data"


# First: by what it finds then, pytest-xdist tells the workers what belongs together.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files side by side, but one browser at a time: two slow each other into their time limits.

    A test that drives a browser may run into one all the same on a busy machine: it gets a second
    chance, which the summary shows.
    """
    for item in items:
        path = item.path.relative_to(Path(__file__).parent)
        is_browser = "browser" in path.parts
        group = "browser" if is_browser else path.as_posix()
        item.add_marker(pytest.mark.xdist_group(group))
        if is_browser:
            item.add_marker(pytest.mark.flaky(reruns=1))


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    """A PostgreSQL that may create databases: TEST_DATABASE_URL, else an embedded one."""
    given = os.environ.get("TEST_DATABASE_URL")
    if given:
        refuse_unless_test_database(given)
        yield given
        return
    # Not under pytest's own folder: as root, the server runs as a user that may not enter it.
    with tempfile.TemporaryDirectory(prefix="rarefind-test-server-") as home:
        url, stop = start_embedded_server(Path(home))
        do_without_durability(url)
        yield make_url(url).set(database="rarefind_test").render_as_string(hide_password=False)
        stop()


def do_without_durability(url: str) -> None:
    """Tests of a crash kill our processes, never this server: it need not wait for the disk."""
    engine = create_engine(psycopg_url(url), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            connection.execute(text(f"ALTER SYSTEM SET {setting} = off"))
        connection.execute(text("SELECT pg_reload_conf()"))
    engine.dispose()


def refuse_unless_test_database(url: str) -> None:
    """Tests drop databases: never one that a person may work in."""
    name = make_url(url).database or ""
    if not name.endswith("_test"):
        raise pytest.UsageError(
            f"Tests refuse the database {name!r}: its name must end in _test, for they drop it."
        )


@pytest.fixture(scope="session")
def make_database_url(server_url: str) -> Iterator[Callable[..., str]]:
    """Makes empty databases whose names end in _test; dropped at the end of the run."""
    admin = create_engine(
        psycopg_url(make_url(server_url).set(database="postgres").render_as_string(False)),
        isolation_level="AUTOCOMMIT",
    )
    made: list[str] = []

    def make(template: str = "template0") -> str:
        name = f"rarefind_{uuid.uuid4().hex[:12]}_test"
        with admin.connect() as connection:
            connection.execute(text(f'CREATE DATABASE "{name}" TEMPLATE "{template}"'))
        made.append(name)
        return make_url(server_url).set(database=name).render_as_string(hide_password=False)

    yield make
    if "TEST_DATABASE_URL" in os.environ:  # the embedded server goes away as a whole
        with admin.connect() as connection:
            for name in reversed(made):
                connection.execute(text(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'))
    admin.dispose()


@pytest.fixture(scope="session")
def migrated_url(make_database_url: Callable[..., str]) -> str:
    """A database as the migrations build it; nothing is ever committed to it."""
    url = make_database_url()
    engine = create_engine(psycopg_url(url))
    migrate(engine)
    engine.dispose()
    return url


@pytest.fixture(scope="session")
def migrated_engine(migrated_url: str) -> Iterator[Engine]:
    engine = create_engine(psycopg_url(migrated_url))
    yield engine
    engine.dispose()


@pytest.fixture
def database(migrated_engine: Engine) -> Iterator[Database]:
    """One connection whose outer transaction is rolled back: commits inside are savepoints.

    All sessions share the connection, so use it from one thread at a time.
    """
    with migrated_engine.connect() as connection:
        transaction = connection.begin()
        yield Database(connection)
        transaction.rollback()


@pytest.fixture
def session(database: Database) -> Iterator[Session]:
    with database.session() as session:
        yield session


@pytest.fixture(scope="session")
def template_name(make_database_url: Callable[..., str]) -> str:
    """A migrated database that nobody connects to, copied for each test that needs its own."""
    url = make_database_url()
    engine = create_engine(psycopg_url(url))
    migrate(engine)
    engine.dispose()
    return str(make_url(url).database)


@pytest.fixture(scope="session")
def spare_urls() -> list[str]:
    """Databases that tests had for their own, emptied since."""
    return []


@pytest.fixture
def own_database_url(
    make_database_url: Callable[..., str], template_name: str, spare_urls: list[str]
) -> Iterator[str]:
    """A migrated database of the test's own, for real commits, threads or processes."""
    url = spare_urls.pop() if spare_urls else make_database_url(template_name)
    engine = create_engine(psycopg_url(url), poolclass=NullPool)
    with engine.connect() as connection:
        before = connection.execute(text(SHAPE)).one()
    yield url
    empty(engine)
    with engine.connect() as connection:
        if connection.execute(text(SHAPE)).one() == before:
            spare_urls.append(url)


def empty(engine: Engine) -> None:
    """Take every row out and start numbers anew: a fifth of the time that a new database takes."""
    with engine.begin() as connection:
        connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )
        connection.execute(text(EMPTYING))


@pytest.fixture
def empty_database_url(make_database_url: Callable[..., str]) -> str:
    """A database without a table, for the migrations' own tests."""
    return make_database_url()


@pytest.fixture
def own_database(own_database_url: str) -> Iterator[Database]:
    """As `own_database_url`, open."""
    engine = create_engine(psycopg_url(own_database_url))
    yield Database(engine)
    engine.dispose()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings with a data folder of the test's own."""
    return Settings(home=tmp_path / "home", database_url=None)


@pytest.fixture(scope="session")
def readers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Readers]:
    """Processes that decode: for all tests, as starting one takes half a second."""
    home = tmp_path_factory.mktemp("readers")
    with Readers(Settings(home=home, database_url=None)) as readers:
        yield readers


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real sample images beside the project."""
    if not SHARED_DATA.is_dir():
        pytest.skip("needs the real images in ../shared/data, which are not here")
    return SHARED_DATA


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No network and nothing fetched before."""
    use_hub(monkeypatch, "http://127.0.0.1:9", tmp_path / "cache")


def open_web(settings: Settings, url: str) -> TestClient:
    from app.main import create_app  # brings torch: only the tests that need it pay

    app = create_app(settings.model_copy(update={"database_url": url}))
    return TestClient(app, base_url="http://127.0.0.1:8321", raise_server_exceptions=False)


@pytest.fixture
def web(settings: Settings, own_database_url: str) -> Iterator[TestClient]:
    """The whole application on a database of its own; nobody is signed in."""
    with open_web(settings, own_database_url) as web:
        yield web


@pytest.fixture
def client(web: TestClient) -> TestClient:
    """As `web`, signed in by a one-time link as the local admin."""
    return sign_in(web)


@pytest.fixture
def idle_client(settings: Settings, own_database_url: str) -> Iterator[TestClient]:
    """As `client`, but long work is left to somebody else."""
    idle = settings.model_copy(update={"run_jobs": False})
    with open_web(idle, own_database_url) as web:
        yield sign_in(web)


def sign_in(web: TestClient) -> TestClient:
    state = web.app.state  # type: ignore[attr-defined]
    with state.database.session() as session:
        link = issue_sign_in_link(
            session, get_local_person(session), base_url=str(web.base_url), settings=state.settings
        )
    response = web.get(link)
    assert response.status_code == 200, response.text
    return web
