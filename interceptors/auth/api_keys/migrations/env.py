"""Alembic's entry point: runs the migrations on the given connection, inside the transaction that holds the lock."""

from alembic import context

from interceptors.auth.api_keys.schema import VERSION_TABLE, metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    # All migrations or none. SQLite supports it too, though Alembic does not assume so.
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
