"""Runs the migrations over the connection that the app hands in, or over DATABASE_URL."""

from alembic import context
from sqlalchemy import Connection, create_engine

from app.database import psycopg_url, start_embedded_server
from app.settings import Settings
from app.tables import Table


def run(connection: Connection) -> None:
    """Run the migrations in one transaction."""
    context.configure(connection=connection, target_metadata=Table.metadata)
    with context.begin_transaction():
        context.run_migrations()


handed_in = context.config.attributes.get("connection")
if handed_in is not None:
    run(handed_in)
else:
    settings = Settings()
    url = settings.database_url or start_embedded_server(settings.home)[0]
    with create_engine(psycopg_url(url)).begin() as opened:
        run(opened)
