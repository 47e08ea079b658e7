"""A site: pinned leases, hosts that register themselves, placement groups, required labels.

Revision 0002, after 0001.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# Written out here, not imported: a released revision never changes with the code.
MOMENT = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
LONG_TEXT = sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")
SERIAL = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
MARIADB: dict[str, Any] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}


def _text(name: str, length: int, default: str = "") -> sa.Column[str]:
    return sa.Column(name, sa.String(length), server_default=default, nullable=False)


def _added() -> dict[str, list[sa.Column[Any]]]:
    """The columns that each table gains; each has a default, so that the rows that are there need nothing."""
    return {
        "hosts": [
            _text("disk_backends", 255),
            sa.Column("images", LONG_TEXT, nullable=True),
            sa.Column("allowed_macs", LONG_TEXT, nullable=True),
            _text("drift", 1024),
        ],
        "images": [_text("required_labels", 1024)],
        "instance_types": [_text("required_labels", 1024)],
        "instances": [sa.Column("group_id", sa.String(24), nullable=True), _text("wanted_ip", 15)],
        "leases": [_text("dns_name", 255)],
        "networks": [_text("kind", 16, "POOLED")],
    }


def upgrade() -> None:
    """Add what is new."""
    op.create_table(
        "join_tokens",
        sa.Column("id", sa.String(24), nullable=False),
        sa.Column("token_sha256", sa.String(64), nullable=False),
        sa.Column("name_pattern", sa.String(255), nullable=False),
        sa.Column("uses_left", sa.Integer(), nullable=False),
        sa.Column("expires_at", MOMENT, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_join_tokens")),
        sa.UniqueConstraint("token_sha256", name=op.f("uq_join_tokens_token_sha256")),
        **MARIADB,
    )
    op.create_table(
        "placement_groups",
        sa.Column("id", sa.String(24), nullable=False),
        sa.Column("project_id", sa.String(12), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("strategy", sa.String(16), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_placement_groups_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_placement_groups")),
        sa.UniqueConstraint("project_id", "name", name=op.f("uq_placement_groups_project_id_name")),
        **MARIADB,
    )
    op.create_table(
        "lease_pins",
        sa.Column("lease_id", SERIAL, nullable=False),
        sa.Column("host_id", sa.String(255), nullable=False),
        sa.ForeignKeyConstraint(["host_id"], ["hosts.id"], name=op.f("fk_lease_pins_host_id")),
        sa.ForeignKeyConstraint(["lease_id"], ["leases.id"], name=op.f("fk_lease_pins_lease_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("lease_id", "host_id", name=op.f("pk_lease_pins")),
        **MARIADB,
    )
    op.create_index(op.f("ix_lease_pins_host_id"), "lease_pins", ["host_id"])
    for table, columns in _added().items():
        for column in columns:
            op.add_column(table, column)
    op.create_index(op.f("ix_instances_group_id"), "instances", ["group_id"])


def downgrade() -> None:
    """Take it away again."""
    op.drop_index(op.f("ix_instances_group_id"), table_name="instances")
    for table, columns in _added().items():
        for column in reversed(columns):
            op.drop_column(table, column.name)
    for table in ("lease_pins", "placement_groups", "join_tokens"):
        op.drop_table(table)
