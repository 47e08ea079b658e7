"""A host remembers the number of its last heartbeat, so that a late one is known.

Revision 0004, after 0003.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add what is new. 0: the next heartbeat is taken, whatever its number."""
    op.add_column("hosts", sa.Column("heartbeat_sequence", sa.BigInteger(), server_default="0", nullable=False))


def downgrade() -> None:
    """Take it away again."""
    op.drop_column("hosts", "heartbeat_sequence")
