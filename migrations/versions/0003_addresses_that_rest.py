"""An address that was given back is kept until DHCP has forgotten its last holder; a list is read in its own order.

Revision 0003, after 0002.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")


def upgrade() -> None:
    """Add what is new. What was given back before is free, as it was."""
    op.add_column("leases", sa.Column("free_after", MOMENT, nullable=True))
    # The new one first: on MariaDB the foreign key needs one that begins with the project.
    op.create_index(
        "ix_instances_project_id_position", "instances", ["project_id", "created_at", "reservation_id", "launch_index"]
    )
    op.drop_index("ix_instances_project_id_created_at", "instances")


def downgrade() -> None:
    """Take it away again."""
    op.create_index("ix_instances_project_id_created_at", "instances", ["project_id", "created_at"])
    op.drop_index("ix_instances_project_id_position", "instances")
    op.drop_column("leases", "free_after")
