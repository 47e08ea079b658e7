"""Hosts have epochs; removed hosts, their addresses and guests on the wrong host are remembered.

Revision 0005, after 0004.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")


def upgrade() -> None:
    """Add what is new."""
    op.add_column("hosts", sa.Column("epoch", sa.BigInteger(), server_default="1", nullable=False))
    op.add_column("hosts", sa.Column("remarks", sa.String(1024), server_default="", nullable=False))
    op.create_table(
        "removed_hosts",
        sa.Column("id", sa.String(255), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("removed_at", MOMENT, nullable=False),
        sa.Column("fenced_at", MOMENT, nullable=True),
        sa.Column("last_seen_at", MOMENT, nullable=True),
        sa.Column("queue_removed_at", MOMENT, nullable=True),
        sa.Column("remarks", sa.String(1024), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_removed_hosts"),
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
    )
    op.create_table(
        "stray_guests",
        sa.Column("host_id", sa.String(255), nullable=False),
        sa.Column("instance_id", sa.String(24), nullable=False),
        sa.Column("power", sa.String(16), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("times_seen", sa.Integer(), nullable=False),
        sa.Column("first_seen_at", MOMENT, nullable=False),
        sa.Column("removal_sent_at", MOMENT, nullable=True),
        sa.Column("reason", sa.String(255), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("host_id", "instance_id", name="pk_stray_guests"),
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
    )
    op.create_index("ix_stray_guests_removal_sent_at", "stray_guests", ["removal_sent_at"])
    op.add_column("instances", sa.Column("shutdown_behavior", sa.String(16), server_default="stop", nullable=False))
    op.add_column("leases", sa.Column("quarantine_host", sa.String(255), nullable=True))
    op.add_column("leases", sa.Column("quarantine_instance", sa.String(24), nullable=True))
    op.create_index("ix_leases_quarantine_host", "leases", ["quarantine_host"])


def downgrade() -> None:
    """Take it away again."""
    op.drop_index("ix_leases_quarantine_host", "leases")
    op.drop_column("leases", "quarantine_instance")
    op.drop_column("leases", "quarantine_host")
    op.drop_column("instances", "shutdown_behavior")
    op.drop_table("stray_guests")
    op.drop_table("removed_hosts")
    op.drop_column("hosts", "remarks")
    op.drop_column("hosts", "epoch")
