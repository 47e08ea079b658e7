"""Hosts have epochs; removed hosts, their addresses and guests on the wrong host are remembered; services that run
are known, and releases; free leases and changed hosts are found without reading all.

Revision 0005, after 0004. It only adds, and what it adds has defaults: services of 0.1 go on with these tables.
MariaDB commits each change of a table: a run that ended half-way is taken up where it ended.
"""

from typing import Any

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
    _add_column("hosts", sa.Column("epoch", sa.BigInteger(), server_default="1", nullable=False))
    _add_column("hosts", sa.Column("remarks", sa.String(1024), server_default="", nullable=False))
    _add_column("hosts", sa.Column("guest_overhead_mib", sa.Integer(), server_default="0", nullable=False))
    _add_column("images", sa.Column("deregistered_at", MOMENT, nullable=True))
    _add_column("claims", sa.Column("overhead_mib", sa.Integer(), server_default="0", nullable=False))
    _create_table(
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
    _create_table(
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
    _create_index("ix_stray_guests_removal_sent_at", "stray_guests", ["removal_sent_at"])
    _create_index("ix_stray_guests_owner_host", "stray_guests", ["owner_host"])
    _add_column("instances", sa.Column("shutdown_behavior", sa.String(16), server_default="stop", nullable=False))
    _add_column("leases", sa.Column("quarantine_host", sa.String(255), nullable=True))
    _add_column("leases", sa.Column("quarantine_instance", sa.String(24), nullable=True))
    _create_index("ix_leases_quarantine_host", "leases", ["quarantine_host"])
    _create_table(
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
    _add_column("cloud", sa.Column("oldest_release", sa.String(32), server_default="0.1.0", nullable=False))
    _add_column("hosts", sa.Column("release", sa.String(32), server_default="", nullable=False))
    _add_column("hosts", sa.Column("speaks", sa.Integer(), server_default="1", nullable=False))
    # Release 0.1 ended a delete that its host did not answer in time in ERROR, and left it there.
    op.execute(
        "UPDATE instances SET state = 'DELETING', deadline_at = NULL, reason = '', reason_code = ''"
        " WHERE state = 'ERROR' AND host_id IS NOT NULL AND reason LIKE 'its host did not report it gone in time%'"
    )
    _add_column("hosts", sa.Column("changed_at", MOMENT, nullable=True))
    free = sa.text("instance_id IS NULL")
    columns = ["network_id", "instance_id", "released_at"]
    _create_index("ix_leases_free", "leases", columns, postgresql_where=free, sqlite_where=free)


def downgrade() -> None:
    """Take it away again."""
    _drop_index("ix_leases_free", "leases")
    _drop_column("hosts", "changed_at")
    _drop_column("hosts", "speaks")
    _drop_column("hosts", "release")
    _drop_column("cloud", "oldest_release")
    _drop_table("services")
    _drop_index("ix_leases_quarantine_host", "leases")
    _drop_column("leases", "quarantine_instance")
    _drop_column("leases", "quarantine_host")
    _drop_column("instances", "shutdown_behavior")
    _drop_table("stray_guests")
    _drop_table("removed_hosts")
    _give_overheads_back()
    _give_reason_codes_back()
    _drop_column("claims", "overhead_mib")
    _drop_column("images", "deregistered_at")
    _drop_column("hosts", "guest_overhead_mib")
    _drop_column("hosts", "remarks")
    _drop_column("hosts", "epoch")


def _give_overheads_back() -> None:
    """Release 0.1 claims what a guest is given, and takes a claim of another size for wrong."""
    if not _has_column("claims", "overhead_mib"):
        return
    op.execute(
        "UPDATE hosts SET memory_used_mib = memory_used_mib"
        " - (SELECT coalesce(sum(overhead_mib), 0) FROM claims WHERE claims.host_id = hosts.id)"
    )
    op.execute("UPDATE claims SET memory_mib = memory_mib - overhead_mib, overhead_mib = 0")


def _give_reason_codes_back() -> None:
    """Release 0.1 shows the codes of its rows to EC2's clients as they are."""
    op.execute(
        "UPDATE instances SET reason_code = CASE reason_code"
        " WHEN 'no_capacity' THEN 'Server.InsufficientInstanceCapacity'"
        " WHEN 'no_free_address' THEN 'Server.InsufficientFreeAddresses'"
        " WHEN 'instance_initiated_shutdown' THEN 'Client.InstanceInitiatedShutdown'"
        " ELSE 'Server.InternalError' END"
        " WHERE reason_code <> '' AND reason_code NOT LIKE '%.%'"
    )


def _has_table(table: str) -> bool:
    return sa.inspect(op.get_bind()).has_table(table)


def _has_column(table: str, column: str) -> bool:
    return column in {c["name"] for c in sa.inspect(op.get_bind()).get_columns(table)}


def _has_index(table: str, index: str) -> bool:
    return index in {i["name"] for i in sa.inspect(op.get_bind()).get_indexes(table)}


def _create_table(name: str, *columns: sa.schema.SchemaItem, **options: Any) -> None:
    if not _has_table(name):
        op.create_table(name, *columns, **options)


def _add_column(table: str, column: "sa.Column[object]") -> None:
    if not _has_column(table, column.name):
        op.add_column(table, column)


def _create_index(name: str, table: str, columns: list[str], **options: Any) -> None:
    if not _has_index(table, name):
        op.create_index(name, table, columns, **options)


def _drop_table(name: str) -> None:
    if _has_table(name):
        op.drop_table(name)


def _drop_column(table: str, column: str) -> None:
    if _has_column(table, column):
        op.drop_column(table, column)


def _drop_index(name: str, table: str) -> None:
    if _has_index(table, name):
        op.drop_index(name, table)
