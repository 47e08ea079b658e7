"""What heartbeats show of the guests of instances: compared with the rows, and applied where these are behind.

Reports do the same sooner (``instances.reports``). This is for reports that were lost, and for guests that changed
without a command.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import timedelta

from controller.domain.guests import Power
from controller.domain.messages import UNKNOWN_GENERATION, GuestState, HostReported
from controller.domain.sightings import AT_ONCE, SIGHTINGS, Sight, sight_of
from controller.domain.states import Event, State
from controller.operations.cloud import Transaction
from controller.operations.instances.generations import catch_up, is_awaited, is_believable
from controller.operations.instances.locking import LockedInstance
from controller.operations.instances.reports import NOT_SHOWN, SHOWN, apply_event
from controller.operations.instances.transitions import doorbells

# A heartbeat may have been written before the last event, so a difference is believed only after the instance has been
# in its state for so long; the age of the heartbeat counts in addition.
_SETTLED_S = 30
_UNTOLD = (Sight.UNTOLD_RUNNING, Sight.UNTOLD_SHUT_OFF)
# The state and generation of each instance of a host.
Carried = Mapping[str, tuple[State, int]]


def find_differences(carried: Carried, message: HostReported) -> dict[str, GuestState | None]:
    """The instances of a host whose rows say something else than its heartbeat, with their guests (None: not shown)."""
    shown, pending = {g.instance_id: g for g in message.guests}, set(message.pending)
    return {
        i: shown.get(i)
        for i, row in carried.items()
        if _differs(*row, shown.get(i)) and not (i in pending and _is_off(shown.get(i)))
    }


def reconcile(
    tx: Transaction,
    instances: Sequence[LockedInstance],
    shown: Mapping[str, GuestState | None],
    late: Mapping[str, timedelta],
) -> None:
    """Apply what heartbeats show of locked instances, by the table of sightings; ``late``: how old each host's is."""
    newest: dict[str, int] = {}
    groups: dict[tuple[Event, str], list[LockedInstance]] = defaultdict(list)
    forgotten = []
    for instance in instances:
        state, guest = instance.state, shown[instance.id]
        if not state.known:
            continue  # it has changed since it was compared
        if guest is not None and guest.generation > instance.generation:
            if not is_believable(instance, guest.generation):
                continue
            newest[instance.id] = guest.generation
            if is_awaited(instance):
                continue  # the guest shows the result of another request than the one under way
        sight = sight_of(guest)
        event = SIGHTINGS.get((state, sight))
        # A state dated in the future was written by a clock that was wrong: it counts as settled, too.
        at_least = timedelta(seconds=_SETTLED_S) + late[instance.host_id or ""]
        settled = abs(tx.now - instance.state_since) > at_least
        if event is None or not (settled or (state, sight) in AT_ONCE):
            continue
        if _is_behind(instance, guest) and state is not State.UNKNOWN:
            continue  # the newest request has not been carried out yet
        groups[event, SHOWN if guest else NOT_SHOWN].append(instance)
        if sight in _UNTOLD and state is not State.UNKNOWN:
            forgotten.append(instance)
    catch_up(tx, [i for i in instances if i.id in newest], newest)
    for (event, detail), alike in groups.items():
        apply_event(tx, alike, event, detail)
    tx.outbox += doorbells(tx, forgotten)  # their agents have lost their journals: send the desired state again


def _differs(state: State, generation: int, guest: GuestState | None) -> bool:
    if not state.known or (guest is not None and not guest.power.known):
        return False  # written by a newer release, and left to it
    if guest and guest.generation == generation and state is State.ACTIVE and guest.power is Power.RUNNING:
        return False  # the usual case, without a look at the table
    ahead = guest is not None and guest.generation > generation
    return ahead or (state, sight_of(guest)) in SIGHTINGS


def _is_off(guest: GuestState | None) -> bool:
    """While its agent works on a guest that is off, this shows nothing: the result of the work will be reported."""
    return guest is None or guest.power is not Power.RUNNING


def _is_behind(instance: LockedInstance, guest: GuestState | None) -> bool:
    return guest is not None and UNKNOWN_GENERATION < guest.generation < instance.generation
