"""The hash chain of the audit log, which may only be added to."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

from core.database.audit_chain import BEFORE_THE_FIRST, link

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_REFUSAL = "the audit log may only be added to"
_ALL = "SELECT id, at, actor, action, subject, address, request_id, detail FROM audit_log ORDER BY id"
_SQLITE = (
    "CREATE TRIGGER audit_log_update BEFORE UPDATE ON audit_log WHEN OLD.hash <> '' "
    f"BEGIN SELECT RAISE(ABORT, '{_REFUSAL}'); END",
    f"CREATE TRIGGER audit_log_delete BEFORE DELETE ON audit_log BEGIN SELECT RAISE(ABORT, '{_REFUSAL}'); END",
)
_POSTGRESQL = (
    "CREATE FUNCTION audit_log_refuse() RETURNS trigger LANGUAGE plpgsql AS "
    f"$$ BEGIN RAISE EXCEPTION '{_REFUSAL}'; END $$",
    "CREATE TRIGGER audit_log_update BEFORE UPDATE ON audit_log FOR EACH ROW WHEN (OLD.hash <> '') "
    "EXECUTE FUNCTION audit_log_refuse()",
    "CREATE TRIGGER audit_log_delete BEFORE DELETE ON audit_log FOR EACH ROW EXECUTE FUNCTION audit_log_refuse()",
)


def upgrade() -> None:
    op.add_column("audit_log", sa.Column("position", sa.BigInteger(), nullable=True))
    op.add_column("audit_log", sa.Column("hash", sa.String(length=64), nullable=False, server_default=""))
    op.create_index(op.f("ix_audit_log_position"), "audit_log", ["position"], unique=True)
    head = op.create_table(
        "audit_head",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_head")),
    )
    position, last = _chain_what_is_there()
    op.bulk_insert(head, [{"id": 1, "position": position, "hash": last}])
    for statement in _SQLITE if op.get_bind().dialect.name == "sqlite" else _POSTGRESQL:
        op.execute(statement)


def downgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        op.execute("DROP TRIGGER audit_log_update")
        op.execute("DROP TRIGGER audit_log_delete")
    else:
        op.execute("DROP TRIGGER audit_log_update ON audit_log")
        op.execute("DROP TRIGGER audit_log_delete ON audit_log")
        op.execute("DROP FUNCTION audit_log_refuse()")
    op.drop_table("audit_head")
    op.drop_index(op.f("ix_audit_log_position"), "audit_log")
    with op.batch_alter_table("audit_log") as batch:
        batch.drop_column("hash")
        batch.drop_column("position")


def _chain_what_is_there() -> tuple[int, str]:
    """Entries that were written before the chain are sealed as they are now."""
    bind = op.get_bind()
    texts = ("actor", "action", "subject", "address", "request_id")
    rows = bind.execute(sa.text(_ALL)).all()
    position, last = 0, BEFORE_THE_FIRST
    change = sa.text("UPDATE audit_log SET position = :position, hash = :hash WHERE id = :id")
    for row in rows:
        at = datetime.fromisoformat(row.at) if isinstance(row.at, str) else row.at
        at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
        detail = json.loads(row.detail) if isinstance(row.detail, str) else row.detail
        position += 1
        last = link(last, position, at, tuple(getattr(row, text) for text in texts), detail)
        bind.execute(change, {"position": position, "hash": last, "id": row.id})
    return position, last
