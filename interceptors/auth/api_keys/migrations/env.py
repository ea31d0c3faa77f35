"""Alembic's entry: runs the migrations on the connection it is handed, inside the transaction that holds the lock."""

from alembic import context

from interceptors.auth.api_keys.schema import VERSION_TABLE, metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    # SQLite can do it too, though Alembic does not assume so: all migrations or none.
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
