"""The table of keys after the newest migration. Times are Unix seconds."""

from __future__ import annotations

from sqlalchemy import Column, Double, LargeBinary, MetaData, String, Table, Text

VERSION_TABLE = "api_keys_version"
"""Name of Alembic's own table: the database may be shared with other programs that use Alembic."""

metadata = MetaData()

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("digest", LargeBinary(32), nullable=False),
    Column("pepper", String(16), nullable=False),
    Column("label", Text, nullable=False),
    Column("scopes", Text, nullable=False),  # separated by spaces, as in OAuth
    Column("created", Double, nullable=False),
    Column("expires", Double),
    Column("revoked", Double),
    Column("last_used", Double),
    Column("replaced_by", String(32)),
)
