"""Which recommendations are followed, and what became of them in service."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_SEARCHES = sa.table(
    "optimisations", sa.column("id", sa.Integer), sa.column("wanted", sa.JSON), sa.column("follow", sa.Boolean)
)


def upgrade() -> None:
    op.add_column("optimisations", sa.Column("follow", sa.Boolean(), nullable=False, server_default=sa.true()))
    op.add_column("optimisations", sa.Column("fault", sa.Text(), nullable=False, server_default=""))
    rows = op.get_bind().execute(sa.select(_SEARCHES.c.id, _SEARCHES.c.wanted)).all()
    only_asked = [row.id for row in rows if not (row.wanted or {}).get("apply", True)]
    if only_asked:
        op.execute(sa.update(_SEARCHES).where(_SEARCHES.c.id.in_(only_asked)).values(follow=False))


def downgrade() -> None:
    op.drop_column("optimisations", "fault")
    op.drop_column("optimisations", "follow")
