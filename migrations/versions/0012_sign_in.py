"""Second factors, and passwords that must be changed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "recovery_codes",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_recovery_codes_user_id_users"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_recovery_codes")),
    )
    op.create_index(op.f("ix_recovery_codes_user_id"), "recovery_codes", ["user_id"])
    with op.batch_alter_table("users") as users:
        users.add_column(
            sa.Column("must_change_password", sa.Boolean(), nullable=False, server_default=sa.false())
        )
        users.add_column(sa.Column("totp_sealed", sa.LargeBinary(), nullable=True))
        users.add_column(sa.Column("totp_since", sa.DateTime(timezone=True), nullable=True))
        users.add_column(sa.Column("totp_last_step", sa.BigInteger(), nullable=False, server_default="0"))
    with op.batch_alter_table("sessions") as sessions:
        sessions.add_column(
            sa.Column("second_factor_due", sa.Boolean(), nullable=False, server_default=sa.false())
        )


def downgrade() -> None:
    with op.batch_alter_table("sessions") as sessions:
        sessions.drop_column("second_factor_due")
    with op.batch_alter_table("users") as users:
        for name in ("totp_last_step", "totp_since", "totp_sealed", "must_change_password"):
            users.drop_column(name)
    op.drop_table("recovery_codes")
