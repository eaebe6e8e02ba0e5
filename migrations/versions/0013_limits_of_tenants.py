"""Limits of tenants, and budgets of tokens and tenants."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("access_tokens", sa.Column("budgets", sa.JSON(), nullable=True))
    for name, kind in (
        ("rate", sa.JSON),
        ("burst", sa.Integer),
        ("max_concurrency", sa.Integer),
        ("budgets", sa.JSON),
    ):
        op.add_column("tenants", sa.Column(name, kind(), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("tenants") as batch:
        for name in ("budgets", "max_concurrency", "burst", "rate"):
            batch.drop_column(name)
    with op.batch_alter_table("access_tokens") as batch:
        batch.drop_column("budgets")
