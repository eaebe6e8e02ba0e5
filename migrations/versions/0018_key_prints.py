"""Which keys a server has, as a fingerprint."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("nodes", sa.Column("key_print", sa.String(length=16), nullable=False, server_default=""))


def downgrade() -> None:
    op.drop_column("nodes", "key_print")
