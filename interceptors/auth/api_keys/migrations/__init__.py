"""The migrations of the table of keys: Alembic's environment, run only by `interceptors.auth.api_keys.migrate`."""
