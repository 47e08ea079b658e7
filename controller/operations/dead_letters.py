"""Messages that no handler could carry out: kept, shown, sent again or thrown away."""

from collections.abc import Sequence

from sqlalchemy import delete, select

from controller.db.models import DeadLetter
from controller.domain.checks import storable
from controller.domain.errors import NotFound
from controller.operations.cloud import Transaction

# Older ones go when there are more: nothing grows without a bound.
KEEP = 10000
_QUEUE_CHARS = 255


def record_dead_letter(tx: Transaction, body: bytes, queue: str, reason: str) -> None:
    """Keep a dead letter; what no database can keep of it is replaced."""
    text = body.decode(errors="replace")
    tx.session.add(
        DeadLetter(at=tx.now, queue=storable(queue)[:_QUEUE_CHARS], reason=storable(reason), body=storable(text))
    )
    tx.session.flush()
    newest = tx.session.scalar(select(DeadLetter.id).order_by(DeadLetter.id.desc()).limit(1)) or 0
    tx.session.execute(delete(DeadLetter).where(DeadLetter.id <= newest - KEEP))


def list_dead_letters(tx: Transaction) -> Sequence[DeadLetter]:
    """All of them, the newest first."""
    return tx.session.scalars(select(DeadLetter).order_by(DeadLetter.id.desc())).all()


def get_dead_letter(tx: Transaction, letter_id: int) -> DeadLetter:
    """One of them. Raises NotFound."""
    row = tx.session.get(DeadLetter, letter_id)
    if row is None:
        raise NotFound(kind="dead letter", id=letter_id)
    return row


def replay(tx: Transaction, ids: Sequence[int]) -> None:
    """Have the controller send these again; a letter is gone once the broker has it. Raises NotFound."""
    for letter_id in ids:
        get_dead_letter(tx, letter_id).replay_at = tx.now


def discard(tx: Transaction, ids: Sequence[int]) -> None:
    """Throw these away. Raises NotFound."""
    for letter_id in ids:
        tx.session.delete(get_dead_letter(tx, letter_id))


def to_replay(tx: Transaction, limit: int = 100) -> Sequence[DeadLetter]:
    """Those that are to be sent again now."""
    return tx.session.scalars(
        select(DeadLetter).where(DeadLetter.replay_at <= tx.now).order_by(DeadLetter.id).limit(limit)
    ).all()


def stop_replaying(tx: Transaction, letter_id: int) -> None:
    """Do not send this one again until somebody asks for it once more."""
    get_dead_letter(tx, letter_id).replay_at = None
