"""Which requests are outdated: the journal knows a newer one for the guest, or another one of the same generation."""

import sqlite3
from collections.abc import Mapping, Sequence

from controller.domain.guests import Desired
from controller.domain.messages import GuestSpec, OutdatedRequest
from controller.domain.wire import decode_guest

# SQLite limits the parameters of a statement.
_IDS_AT_ONCE = 500


def newest(db: sqlite3.Connection, host: str, guests: Sequence[GuestSpec]) -> dict[str, tuple[int, str | None]]:
    """The newest request for each of these guests: its generation and its specification, None of one that is gone."""
    found: dict[str, tuple[int, str | None]] = {}
    ids = [spec.instance_id for spec in guests]
    for n in range(0, len(ids), _IDS_AT_ONCE):
        some = ids[n : n + _IDS_AT_ONCE]
        marks = ",".join("?" * len(some))
        query = f"SELECT instance, generation, spec FROM guests WHERE host = ? AND instance IN ({marks})"  # noqa: S608
        found |= {instance: (generation, spec) for instance, generation, spec in db.execute(query, (host, *some))}
    return found


def sort(
    guests: Sequence[GuestSpec], known: Mapping[str, tuple[int, str | None]]
) -> tuple[list[OutdatedRequest], list[GuestSpec]]:
    """The requests that are outdated, and those that the journal knows as they are."""
    outdated, same = [], []
    for spec in guests:
        newest, text = known[spec.instance_id]
        if newest == spec.generation and _is_same(spec, decode_guest(text) if text else None):
            same.append(spec)
        else:
            outdated.append(OutdatedRequest(spec.instance_id, spec.generation, newest))
    return outdated, same


def _is_same(asked: GuestSpec, known: GuestSpec | None) -> bool:
    """Whether both ask for the same; of a guest that is gone (None) only its removal is remembered."""
    if known is None:
        return asked.desired is Desired.ABSENT
    another_time = asked.reboot and 0 < asked.wished_us != known.wished_us > 0
    return (asked.desired, asked.reboot) == (known.desired, known.reboot) and not another_time
