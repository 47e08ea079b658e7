"""Hosts have epochs; removed hosts, their addresses and guests on the wrong host are remembered; services that run
are known, and releases; free leases and changed hosts are found without reading all.

Revision 0005, after 0004. It only adds, and what it adds has defaults: services of 0.1 go on with these tables.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

# Written out here, not imported: a released revision never changes with the code.
MOMENT = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
LONG_TEXT = sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")


def upgrade() -> None:
    """Add what is new."""
    op.add_column("hosts", sa.Column("epoch", sa.BigInteger(), server_default="1", nullable=False))
    op.add_column("hosts", sa.Column("remarks", sa.String(1024), server_default="", nullable=False))
    op.add_column("hosts", sa.Column("guest_overhead_mib", sa.Integer(), server_default="0", nullable=False))
    op.add_column("images", sa.Column("deregistered_at", MOMENT, nullable=True))
    op.add_column("claims", sa.Column("overhead_mib", sa.Integer(), server_default="0", nullable=False))
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
        sa.Column("owner_host", sa.String(255), nullable=True),
        sa.Column("owner_seen_at", MOMENT, nullable=True),
        sa.Column("reason", sa.String(255), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("host_id", "instance_id", name="pk_stray_guests"),
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
    )
    op.create_index("ix_stray_guests_removal_sent_at", "stray_guests", ["removal_sent_at"])
    op.create_index("ix_stray_guests_owner_host", "stray_guests", ["owner_host"])
    op.add_column("instances", sa.Column("shutdown_behavior", sa.String(16), server_default="stop", nullable=False))
    op.add_column("leases", sa.Column("quarantine_host", sa.String(255), nullable=True))
    op.add_column("leases", sa.Column("quarantine_instance", sa.String(24), nullable=True))
    op.create_index("ix_leases_quarantine_host", "leases", ["quarantine_host"])
    op.create_table(
        "services",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("machine", sa.String(255), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("release", sa.String(32), nullable=False),
        sa.Column("speaks", sa.Integer(), nullable=False),
        sa.Column("unread", LONG_TEXT, nullable=False),
        sa.Column("started_at", MOMENT, nullable=False),
        sa.Column("seen_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_services"),
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
    )
    op.add_column("cloud", sa.Column("oldest_release", sa.String(32), server_default="0.1.0", nullable=False))
    op.add_column("hosts", sa.Column("release", sa.String(32), server_default="", nullable=False))
    op.add_column("hosts", sa.Column("speaks", sa.Integer(), server_default="1", nullable=False))
    # Release 0.1 ended a delete that its host did not answer in time in ERROR, and left it there.
    op.execute(
        "UPDATE instances SET state = 'DELETING', deadline_at = NULL, reason = '', reason_code = ''"
        " WHERE state = 'ERROR' AND host_id IS NOT NULL AND reason LIKE 'its host did not report it gone in time%'"
    )
    op.add_column("hosts", sa.Column("changed_at", MOMENT, nullable=True))
    free = sa.text("instance_id IS NULL")
    columns = ["network_id", "instance_id", "released_at"]
    op.create_index("ix_leases_free", "leases", columns, postgresql_where=free, sqlite_where=free)


def downgrade() -> None:
    """Take it away again."""
    op.drop_index("ix_leases_free", "leases")
    op.drop_column("hosts", "changed_at")
    op.drop_column("hosts", "speaks")
    op.drop_column("hosts", "release")
    op.drop_column("cloud", "oldest_release")
    op.drop_table("services")
    op.drop_index("ix_leases_quarantine_host", "leases")
    op.drop_column("leases", "quarantine_instance")
    op.drop_column("leases", "quarantine_host")
    op.drop_column("instances", "shutdown_behavior")
    op.drop_table("stray_guests")
    op.drop_table("removed_hosts")
    op.drop_column("claims", "overhead_mib")
    op.drop_column("images", "deregistered_at")
    op.drop_column("hosts", "guest_overhead_mib")
    op.drop_column("hosts", "remarks")
    op.drop_column("hosts", "epoch")
