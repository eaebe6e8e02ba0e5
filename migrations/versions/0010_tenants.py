"""Tenants, who may call which model, and tokens with a priority, a burst and an old secret that still holds."""

from __future__ import annotations

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_DEFAULT = "default"


def upgrade() -> None:
    tenants = op.create_table(
        "tenants",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("note", sa.String(length=200), nullable=False),
        sa.Column("disabled", sa.Boolean(), nullable=False),
        sa.Column("created_by", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tenants")),
        sa.UniqueConstraint("name", name=op.f("uq_tenants_name")),
    )
    for table in ("models", "pipelines"):
        op.add_column(table, sa.Column("tenants", sa.JSON(none_as_null=True), nullable=True))
    # What was written there before was a note: each one becomes a tenant, and nothing is shared less than it was.
    op.execute(sa.text("UPDATE access_tokens SET tenant = :name WHERE tenant IS NULL").bindparams(name=_DEFAULT))
    noted = op.get_bind().execute(sa.text("SELECT DISTINCT tenant FROM access_tokens")).scalars()
    now = datetime.now(UTC)
    op.bulk_insert(
        tenants,
        [
            {
                "name": name,
                "note": "",
                "disabled": False,
                "created_by": "system",
                "created_at": now,
                "updated_at": now,
            }
            for name in sorted({_DEFAULT, *noted})
        ],
    )
    with op.batch_alter_table("access_tokens") as batch:
        batch.alter_column("tenant", existing_type=sa.String(length=64), nullable=False)
        batch.add_column(sa.Column("burst", sa.Integer(), nullable=True))
        batch.add_column(sa.Column("priority", sa.Integer(), nullable=True))
        batch.add_column(sa.Column("previous_hash", sa.LargeBinary(length=32), nullable=True))
        batch.add_column(sa.Column("previous_until", sa.DateTime(timezone=True), nullable=True))
        batch.create_index(op.f("ix_access_tokens_tenant"), ["tenant"])


def downgrade() -> None:
    with op.batch_alter_table("access_tokens") as batch:
        batch.drop_index(op.f("ix_access_tokens_tenant"))
        for column in ("previous_until", "previous_hash", "priority", "burst"):
            batch.drop_column(column)
        batch.alter_column("tenant", existing_type=sa.String(length=64), nullable=True)
    op.execute(sa.text("UPDATE access_tokens SET tenant = NULL WHERE tenant = :name").bindparams(name=_DEFAULT))
    for table in ("pipelines", "models"):
        with op.batch_alter_table(table) as batch:
            batch.drop_column("tenants")
    op.drop_table("tenants")
