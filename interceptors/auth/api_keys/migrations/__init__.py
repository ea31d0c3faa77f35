"""How the table of keys came to be; Alembic's environment. Run by `interceptors.auth.api_keys.migrate` alone."""
