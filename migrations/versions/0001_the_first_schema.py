"""The first schema

Revision 0001, the first.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# Written out here, not imported: a released revision never changes with the code.
MOMENT = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
LONG_TEXT = sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")
SERIAL = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
MARIADB: dict[str, Any] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}


def upgrade() -> None:
    """Add what is new."""
    op.create_table(
        "cloud",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("cloud_id", sa.String(length=8), nullable=False),
        sa.Column("network_epoch", sa.Integer(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_cloud")),
        **MARIADB,
    )
    op.create_table(
        "dead_letters",
        sa.Column("id", SERIAL, autoincrement=True, nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.Column("queue", sa.String(length=255), nullable=False),
        sa.Column("reason", LONG_TEXT, nullable=False),
        sa.Column("body", LONG_TEXT, nullable=False),
        sa.Column("replay_at", MOMENT, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_dead_letters")),
        **MARIADB,
    )
    op.create_index(op.f("ix_dead_letters_replay_at"), "dead_letters", ["replay_at"], unique=False)

    op.create_table(
        "hosts",
        sa.Column("id", sa.String(length=255), nullable=False),
        sa.Column("mode", sa.String(length=16), nullable=False),
        sa.Column("up", sa.Boolean(), nullable=False),
        sa.Column("hypervisor", sa.String(length=16), nullable=False),
        sa.Column("architecture", sa.String(length=16), nullable=False),
        sa.Column("zone", sa.String(length=64), nullable=False),
        sa.Column("labels", LONG_TEXT, nullable=False),
        sa.Column("boot_id", sa.String(length=64), nullable=False),
        sa.Column("vcpus", sa.Integer(), nullable=False),
        sa.Column("memory_mib", sa.Integer(), nullable=False),
        sa.Column("disk_gib", sa.Integer(), nullable=False),
        sa.Column("vcpus_limit", sa.Integer(), nullable=False),
        sa.Column("memory_limit_mib", sa.Integer(), nullable=False),
        sa.Column("disk_limit_gib", sa.Integer(), nullable=False),
        sa.Column("vcpus_used", sa.Integer(), nullable=False),
        sa.Column("memory_used_mib", sa.Integer(), nullable=False),
        sa.Column("disk_used_gib", sa.Integer(), nullable=False),
        sa.Column("last_seen_at", MOMENT, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.CheckConstraint(
            "vcpus_used >= 0 AND memory_used_mib >= 0 AND disk_used_gib >= 0", name=op.f("ck_hosts_used")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_hosts")),
        **MARIADB,
    )
    op.create_table(
        "instance_types",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("vcpus", sa.Integer(), nullable=False),
        sa.Column("memory_mib", sa.Integer(), nullable=False),
        sa.Column("disk_gib", sa.Integer(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_instance_types")),
        **MARIADB,
    )
    op.create_table(
        "projects",
        sa.Column("id", sa.String(length=12), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("quota_instances", sa.Integer(), nullable=False),
        sa.Column("quota_vcpus", sa.Integer(), nullable=False),
        sa.Column("quota_memory_mib", sa.Integer(), nullable=False),
        sa.Column("used_instances", sa.Integer(), nullable=False),
        sa.Column("used_vcpus", sa.Integer(), nullable=False),
        sa.Column("used_memory_mib", sa.Integer(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_projects")),
        sa.UniqueConstraint("name", name=op.f("uq_projects_name")),
        **MARIADB,
    )
    op.create_table(
        "images",
        sa.Column("id", sa.String(length=24), nullable=False),
        sa.Column("project_id", sa.String(length=12), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("description", LONG_TEXT, nullable=False),
        sa.Column("public", sa.Boolean(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("format", sa.String(length=16), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("virtual_size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("architecture", sa.String(length=16), nullable=False),
        sa.Column("hypervisor", sa.String(length=16), nullable=False),
        sa.Column("min_memory_mib", sa.Integer(), nullable=False),
        sa.Column("min_disk_gib", sa.Integer(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_images_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_images")),
        **MARIADB,
    )
    op.create_index(op.f("ix_images_project_id"), "images", ["project_id"], unique=False)
    op.create_index(op.f("ix_images_sha256"), "images", ["sha256"], unique=False)

    op.create_table(
        "key_pairs",
        sa.Column("id", sa.String(length=24), nullable=False),
        sa.Column("project_id", sa.String(length=12), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("type", sa.String(length=16), nullable=False),
        sa.Column("fingerprint", sa.String(length=128), nullable=False),
        sa.Column("public_key", LONG_TEXT, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_key_pairs_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_key_pairs")),
        sa.UniqueConstraint("project_id", "name", name=op.f("uq_key_pairs_project_id_name")),
        **MARIADB,
    )
    op.create_table(
        "networks",
        sa.Column("id", sa.String(length=24), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.String(length=12), nullable=True),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("physical_network", sa.String(length=64), nullable=False),
        sa.Column("vlan", sa.Integer(), nullable=False),
        sa.Column("cidr", sa.String(length=18), nullable=False),
        sa.Column("next_offset", sa.Integer(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_networks_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_networks")),
        sa.UniqueConstraint("number", name=op.f("uq_networks_number")),
        sa.UniqueConstraint("physical_network", "vlan", name=op.f("uq_networks_physical_network_vlan")),
        sa.UniqueConstraint("project_id", "name", name=op.f("uq_networks_project_id_name")),
        **MARIADB,
    )
    op.create_table(
        "reservations",
        sa.Column("id", sa.String(length=24), nullable=False),
        sa.Column("project_id", sa.String(length=12), nullable=False),
        sa.Column("user_id", sa.String(length=24), nullable=False),
        sa.Column("client_token", sa.String(length=64), nullable=True),
        sa.Column("request_sha256", sa.String(length=64), nullable=False),
        sa.Column("min_count", sa.Integer(), nullable=False),
        sa.Column("user_data", LONG_TEXT, nullable=False),
        sa.Column("public_key", LONG_TEXT, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_reservations_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reservations")),
        sa.UniqueConstraint("project_id", "client_token", name=op.f("uq_reservations_project_id_client_token")),
        **MARIADB,
    )
    op.create_index(op.f("ix_reservations_project_id"), "reservations", ["project_id"], unique=False)

    op.create_table(
        "tags",
        sa.Column("resource_id", sa.String(length=24), nullable=False),
        sa.Column("key", sa.String(length=128), nullable=False),
        sa.Column("value", sa.String(length=256), nullable=False),
        sa.Column("resource_type", sa.String(length=32), nullable=False),
        sa.Column("project_id", sa.String(length=12), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_tags_project_id")),
        sa.PrimaryKeyConstraint("resource_id", "key", name=op.f("pk_tags")),
        **MARIADB,
    )
    op.create_index(op.f("ix_tags_project_id"), "tags", ["project_id"], unique=False)

    op.create_table(
        "users",
        sa.Column("id", sa.String(length=24), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("project_id", sa.String(length=12), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("password_hash", sa.String(length=255), nullable=False),
        sa.Column("token_sha256", sa.String(length=64), nullable=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_users_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_users")),
        sa.UniqueConstraint("name", name=op.f("uq_users_name")),
        sa.UniqueConstraint("token_sha256", name=op.f("uq_users_token_sha256")),
        **MARIADB,
    )
    op.create_index(op.f("ix_users_project_id"), "users", ["project_id"], unique=False)

    op.create_table(
        "access_keys",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("user_id", sa.String(length=24), nullable=False),
        sa.Column("secret_encrypted", sa.String(length=512), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_access_keys_user_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_access_keys")),
        **MARIADB,
    )
    op.create_index(op.f("ix_access_keys_user_id"), "access_keys", ["user_id"], unique=False)

    op.create_table(
        "instances",
        sa.Column("id", sa.String(length=24), nullable=False),
        sa.Column("reservation_id", sa.String(length=24), nullable=False),
        sa.Column("launch_index", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.String(length=12), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("state_since", MOMENT, nullable=False),
        sa.Column("reason_code", sa.String(length=64), nullable=False),
        sa.Column("reason", LONG_TEXT, nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("deadline_at", MOMENT, nullable=True),
        sa.Column("ring_at", MOMENT, nullable=True),
        sa.Column("rings", sa.Integer(), nullable=False),
        sa.Column("image_id", sa.String(length=24), nullable=False),
        sa.Column("instance_type", sa.String(length=64), nullable=False),
        sa.Column("vcpus", sa.Integer(), nullable=False),
        sa.Column("memory_mib", sa.Integer(), nullable=False),
        sa.Column("disk_gib", sa.Integer(), nullable=False),
        sa.Column("key_name", sa.String(length=255), nullable=False),
        sa.Column("zone", sa.String(length=64), nullable=False),
        sa.Column("network_id", sa.String(length=24), nullable=False),
        sa.Column("host_id", sa.String(length=255), nullable=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("launched_at", MOMENT, nullable=True),
        sa.Column("deleted_at", MOMENT, nullable=True),
        sa.ForeignKeyConstraint(["host_id"], ["hosts.id"], name=op.f("fk_instances_host_id")),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name=op.f("fk_instances_image_id")),
        sa.ForeignKeyConstraint(["network_id"], ["networks.id"], name=op.f("fk_instances_network_id")),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_instances_project_id")),
        sa.ForeignKeyConstraint(["reservation_id"], ["reservations.id"], name=op.f("fk_instances_reservation_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_instances")),
        **MARIADB,
    )
    op.create_index(op.f("ix_instances_deadline_at"), "instances", ["deadline_at"], unique=False)
    op.create_index(op.f("ix_instances_deleted_at"), "instances", ["deleted_at"], unique=False)
    op.create_index(op.f("ix_instances_host_id"), "instances", ["host_id"], unique=False)
    op.create_index(op.f("ix_instances_image_id"), "instances", ["image_id"], unique=False)
    op.create_index(op.f("ix_instances_network_id"), "instances", ["network_id"], unique=False)
    op.create_index("ix_instances_project_id_created_at", "instances", ["project_id", "created_at"], unique=False)
    op.create_index(op.f("ix_instances_reservation_id"), "instances", ["reservation_id"], unique=False)
    op.create_index(op.f("ix_instances_ring_at"), "instances", ["ring_at"], unique=False)
    op.create_index(op.f("ix_instances_state"), "instances", ["state"], unique=False)

    op.create_table(
        "claims",
        sa.Column("instance_id", sa.String(length=24), nullable=False),
        sa.Column("host_id", sa.String(length=255), nullable=False),
        sa.Column("vcpus", sa.Integer(), nullable=False),
        sa.Column("memory_mib", sa.Integer(), nullable=False),
        sa.Column("disk_gib", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["host_id"], ["hosts.id"], name=op.f("fk_claims_host_id")),
        sa.ForeignKeyConstraint(["instance_id"], ["instances.id"], name=op.f("fk_claims_instance_id")),
        sa.PrimaryKeyConstraint("instance_id", "host_id", name=op.f("pk_claims")),
        **MARIADB,
    )
    op.create_index(op.f("ix_claims_host_id"), "claims", ["host_id"], unique=False)

    op.create_table(
        "leases",
        sa.Column("id", SERIAL, autoincrement=True, nullable=False),
        sa.Column("network_id", sa.String(length=24), nullable=False),
        sa.Column("ip", sa.String(length=15), nullable=False),
        sa.Column("mac", sa.String(length=17), nullable=False),
        sa.Column("instance_id", sa.String(length=24), nullable=True),
        sa.Column("released_at", MOMENT, nullable=True),
        sa.ForeignKeyConstraint(["instance_id"], ["instances.id"], name=op.f("fk_leases_instance_id")),
        sa.ForeignKeyConstraint(["network_id"], ["networks.id"], name=op.f("fk_leases_network_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_leases")),
        sa.UniqueConstraint("mac", name=op.f("uq_leases_mac")),
        sa.UniqueConstraint("network_id", "ip", name=op.f("uq_leases_network_id_ip")),
        **MARIADB,
    )
    op.create_index(op.f("ix_leases_instance_id"), "leases", ["instance_id"], unique=False)

    op.create_table(
        "steps",
        sa.Column("id", SERIAL, autoincrement=True, nullable=False),
        sa.Column("instance_id", sa.String(length=24), nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.Column("event", sa.String(length=32), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("detail", LONG_TEXT, nullable=False),
        sa.ForeignKeyConstraint(
            ["instance_id"], ["instances.id"], name=op.f("fk_steps_instance_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_steps")),
        **MARIADB,
    )
    op.create_index(op.f("ix_steps_instance_id"), "steps", ["instance_id"], unique=False)


def downgrade() -> None:
    """Remove every table; its indexes go with it."""
    for table in (
        "steps",
        "leases",
        "claims",
        "instances",
        "access_keys",
        "users",
        "tags",
        "reservations",
        "networks",
        "key_pairs",
        "images",
        "projects",
        "instance_types",
        "hosts",
        "dead_letters",
        "cloud",
    ):
        op.drop_table(table)
