"""How the table of keys came to be; Alembic's environment. Run by `interceptors.auth.keys.migrate` alone."""
