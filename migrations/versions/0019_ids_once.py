"""SQLite gives no id a second time; PostgreSQL never did."""

from __future__ import annotations

from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

TABLES = (
    "access_rules",
    "access_tokens",
    "derived_artifacts",
    "imports",
    "models",
    "optimisations",
    "pipeline_versions",
    "pipelines",
    "samples",
    "tenants",
    "users",
    "versions",
)


def upgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        _copy(autoincrement=True)


def downgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        _copy(autoincrement=False)


def _copy(*, autoincrement: bool) -> None:
    """Make each of the tables anew with its rows; foreign keys are off meanwhile, and checked at the end."""
    for name in TABLES:
        with op.batch_alter_table(name, recreate="always", table_kwargs={"sqlite_autoincrement": autoincrement}):
            pass
