"""Whether the promises were held: while faults strike, and when all is quiet again."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from controller.domain.guests import Power
from controller.domain.messages import host_queue
from controller.domain.states import State
from controller.operations.audit.audit import audit
from controller.operations.cloud import Transaction
from tests.simulation.bus import Broker
from tests.simulation.clients import Clients
from tests.simulation.database import SimulationDatabase
from tests.simulation.faults import Fault
from tests.simulation.hosts import Host, WatchedSite
from tests.simulation.oracle import Oracle
from tests.simulation.services import ControlPlane
from tests.simulation.simulator import Process, Simulator

# Two heartbeats, and what they need.
_HEARD_WITHIN_S = 45
# By so much clocks may differ.
_CLOCKS_S = 60
_POWER = {State.ACTIVE: Power.RUNNING, State.STOPPED: Power.SHUT_OFF, State.DELETED: None, State.ERROR: None}


class InvariantChecker:
    """Watches the guests, and at the end compares requests, rows and guests."""

    hosts: Sequence[Host]
    guests: WatchedSite
    repairs: Callable[[], int]

    def __init__(
        self, simulator: Simulator, broker: Broker, clients: Clients, sim_database: SimulationDatabase, oracle: Oracle
    ) -> None:
        self._simulator = simulator
        self._oracle = oracle
        self._broker = broker
        self._clients = clients
        self._sim_database = sim_database
        self._violations: list[str] = []
        self.poison: set[str] = set()

    # --- while it runs ---

    def watch(self, host: str, instance_id: str, before: Power | None, after: Power | None, ip: str) -> None:
        """A guest's power is about to change on a host: there must be a request for it."""
        specs = self._asked(instance_id)
        short = f"{instance_id[:8]} on {host}"
        if after is None:
            if not specs["terminate"]:
                self._goes_unasked(host, instance_id, short)
        elif before is Power.RUNNING and after is Power.SHUT_OFF and not specs["stop"] and not specs["reboot"]:
            self._violation(f"{short} is shut off without a request")
        elif after is Power.RUNNING:
            self._booting(host, instance_id)
            self._shares_address(host, instance_id, ip)

    def _goes_unasked(self, host: str, instance_id: str, short: str) -> None:
        there = next(h for h in self.hosts if h.hardware == host)
        if there.went_off[instance_id] and self._clients.ends_itself(instance_id):
            return  # as its owner asked for when it was launched
        if why := self._may_not_go(host, instance_id):
            self._violation(f"{short} is destroyed, {why} and its owner did not ask for it")
        if instance_id not in {disk.instance_id for disk in self.guests.kept(host)}:
            self._violation(f"{short} is destroyed, and its disk is not set aside")

    def _may_not_go(self, host: str, instance_id: str) -> str | None:
        """What speaks against it that a guest goes whose owner did not ask for that; None where nothing does."""
        rows = self._sim_database.peek("SELECT state, launched_at, host_id FROM instances WHERE id = ?", instance_id)
        if not rows:
            by_name = self._oracle.restored_at is not None and self.repairs() > 0
            return None if by_name or self._oracle.force_removed else "it has no row"
        state, launched_at, owner = rows[0]
        there = next(h for h in self.hosts if h.hardware == host)
        if self._oracle.force_removed:
            return None  # an operator's word, by the host's name
        if owner not in (None, there.name) and self._runs_elsewhere(host, instance_id):
            return None  # two of one instance, after an older database was put back
        if state == State.ERROR and launched_at is None:
            return None  # what was left of a build that failed; that it had a cause to fail, the oracle has found
        return f"it is {state} on {owner}"

    def _runs_elsewhere(self, host: str, instance_id: str) -> bool:
        """On another machine, whatever that is called by now."""
        guests = (self.guests.guests(h.hardware).get(instance_id) for h in self.hosts if h.hardware != host)
        return any(g is not None and g[0] is Power.RUNNING for g in guests)

    def _shares_address(self, host: str, instance_id: str, ip: str) -> None:
        for other in self.hosts:
            for other_id, (power, other_ip, _) in self.guests.guests(other.hardware).items():
                same = other_ip == ip and power is Power.RUNNING and (other.hardware, other_id) != (host, instance_id)
                # What was placed after the copy of the database was made is not known any more, and may be placed
                # again; that there is one of it in the end, the verdict finds.
                if same and not (self._oracle.restored_at and not self._holds(ip, instance_id, other_id)):
                    self._violation(
                        f"{instance_id[:8]} on {host} runs with {ip}, as {other_id[:8]} on {other.hardware}"
                    )

    def _holds(self, ip: str, *ids: str) -> bool:
        """Whether each of these instances has this very lease."""
        owners = {i for (i,) in self._sim_database.peek("SELECT instance_id FROM leases WHERE ip = ?", ip)}
        return len(set(ids)) > 1 and set(ids) <= owners

    def heard(self, line: Mapping[str, Any]) -> None:
        """A line of a service's log: an error that it did not expect is a breach."""
        self._simulator.note(f"{line['log_level']}: {line.get('event')} {line.get('reason', '')}")
        if line.get("exc_info"):
            self._violation(f"unexpected error: {line.get('event')}")

    def _booting(self, host: str, instance_id: str) -> None:
        there = next(h for h in self.hosts if h.hardware == host)
        state, _ = self._row(instance_id)
        if state == State.DELETED and not self._may_be_stale(there, instance_id):
            self._violation(f"{instance_id[:8]} boots on {host} though it is deleted")
        _, _, boots = self.guests.guests(host).get(instance_id, (None, "", 0))
        specs = self._asked(instance_id)
        # A reboot whose agent was killed in its middle may be done again.
        again = (
            there.agent_crashes
            + self._simulator.faults.counts[Fault.HYPERVISOR_AWAY]
            + self._simulator.faults.counts[Fault.JOURNAL_FULL]
            if specs["reboot"]
            else 0
        )
        # One that went off by itself is started again where its agent never got to write down that it had run.
        interrupted = there.agent_crashes + self._simulator.faults.counts[Fault.JOURNAL_FULL]
        again += there.went_off[instance_id] if interrupted else 0
        again += self._oracle.restored_at is not None
        allowed = 1 + specs["start"] + specs["reboot"] + (there.boots - 1) + again
        if boots + 1 > allowed:
            self._violation(f"{instance_id[:8]} on {host} boots for the {boots + 1}. time, {allowed} were asked for")

    def _may_be_stale(self, there: Host, instance_id: str) -> bool:
        """Whether a host may carry out a command of which it cannot know that it is void: see docs/hosts.md. Commands
        from before an older copy of the database was put back are of the same epoch as those after it, until they
        expire. A host that was removed by force and was not answered since does what it took before its queue was
        removed, until that expires; the guest's address is in quarantine for as long. Commands of release 0.1 name no
        epoch, so that an agent whose journal is lost takes old ones for new."""
        if there.lost_journals and instance_id in there.without_epoch:
            return True
        taken = there.taken.get(instance_id)
        if taken is None:
            return False
        expires_s = self._sim_database.settings.controller.command_expires_s + _CLOCKS_S
        if self._oracle.restored_at is not None and taken.at <= self._oracle.restored_at + expires_s:
            return True
        removed = self._sim_database.peek("SELECT epoch FROM removed_hosts WHERE id = ?", there.name)
        knows = not removed or removed[0][0] <= there.epoch
        if knows or taken.at > self._broker.removed_at.get(host_queue(there.name), math.inf):
            return False
        # Its agent goes by its own clock until a controller has told it the time.
        over = self._simulator.true_time - timedelta(seconds=_CLOCKS_S + abs(there.process.skew_s))
        expires_at = there.expires_at(instance_id)
        return not expires_at or datetime.fromisoformat(expires_at) >= over

    def _asked(self, instance_id: str) -> Counter[str]:
        return Counter({k: n for (k, i), n in self._clients.attempts.items() if i == instance_id})

    def _row(self, instance_id: str) -> tuple[str, str | None]:
        rows = self._sim_database.peek("SELECT state, launched_at FROM instances WHERE id = ?", instance_id)
        return rows[0] if rows else ("not in the database", None)

    def _violation(self, text: str) -> None:
        self._simulator.note(f"BREACH {text}")
        self._violations.append(text)

    # --- when all is quiet ---

    def open(self) -> list[str]:
        """What is still waited for."""
        found = self._sim_database.peek(
            "SELECT id, state FROM instances WHERE ring_at IS NOT NULL OR deadline_at IS NOT NULL OR state = 'UNKNOWN'"
        )
        waiting = [f"{i[:8]} in {state}" for i, state in found]
        waiting += [f"the agent of {h.name}" for h in self.hosts if h.pending and not h.lost]
        # One that counts its heartbeats anew is heeded only after a while.
        heard = self._simulator.true_time - timedelta(seconds=_HEARD_WITHIN_S)
        soon = self._simulator.true_time + timedelta(seconds=_HEARD_WITHIN_S)
        unheard = self._sim_database.peek(
            "SELECT id FROM hosts WHERE NOT up OR last_seen_at < ? OR last_seen_at > ?", str(heard)[:19], str(soon)[:19]
        )
        waiting += [f"{host} is not heard of" for (host,) in unheard]
        kept = self._sim_database.peek(
            "SELECT id FROM removed_hosts WHERE queue_removed_at IS NULL AND last_seen_at IS NULL"
            " AND id NOT IN (SELECT id FROM hosts)"
        )
        waiting += [f"{host} was removed, its queue was not" for (host,) in kept]
        waiting += ["clients without an answer"] * bool(self._clients.unanswered)
        return waiting + ["messages under way"] * (not self._broker.idle)

    def verdict(self) -> list[str]:
        """Every breach."""
        self._violations += [*self._simulator.surprises, *self._clients.unjust]
        if waiting := [w for w in self.open() if w != "messages under way"]:
            self._violations.append(f"not settled in time: {', '.join(waiting)}")
        self._rows_and_guests()
        self._answers()
        self._options()
        good = [letter for letter in self._broker.dead if letter.body not in self.poison]
        self._violations += [f"set aside as a dead letter: {letter.body[:200]}" for letter in good]
        plane = ControlPlane(self._simulator, self._broker, self._sim_database, self._simulator.random)
        cloud = plane.cloud(Process("auditor", lambda _: None))

        def check(tx: Transaction) -> list[str]:
            return [str(b) for b in audit(tx)]

        self._violations += cloud.read(check)
        return list(dict.fromkeys(self._violations))

    def ended(self) -> int:
        """Accepted requests whose instances have all come to where they stay."""
        states = dict(self._sim_database.peek("SELECT id, state FROM instances"))
        ends = set(_POWER)
        launched = [a for x in self._clients.launches for a in x.answers[:1]]
        acted = [w.ids for w in self._clients.actions if w.accepted]
        return sum(all(states.get(i) in ends for i in ids) for ids in [*launched, *acted])

    def _rows_and_guests(self) -> None:
        present = [h for h in self.hosts if not h.lost]
        there = {h.name: {i: g[0] for i, g in self.guests.guests(h.hardware).items()} for h in present}
        rows = self._sim_database.peek("SELECT id, state, host_id, reason FROM instances")
        for instance_id, state, host, reason in rows:
            if State(state) not in _POWER:
                self._violations.append(f"{instance_id[:8]} is still {state}")
                continue
            expected = {} if (wanted := _POWER[State(state)]) is None else {host: wanted}
            found = {h: guests[instance_id] for h, guests in there.items() if instance_id in guests}
            # Its guest went before an older copy of the database was put back.
            gone = not found and state == State.STOPPED and self._oracle.restored_at and self._asked_to_go(instance_id)
            if found != expected and not gone:
                self._violations.append(f"{instance_id[:8]} is {state} on {host}, its guests are {found}")
            if state == State.ERROR and not reason:
                self._violations.append(f"{instance_id[:8]} is in ERROR and nothing says why")
        known = {row[0] for row in rows}
        strays = [f"{i[:8]} on {h} has no row" for h, guests in there.items() for i in guests if i not in known]
        self._violations += strays if self._oracle.restored_at is None else []
        self._leases()

    def _asked_to_go(self, instance_id: str) -> bool:
        return self._asked(instance_id)["terminate"] > 0 or self._clients.ends_itself(instance_id)

    def _leases(self) -> None:
        """An address belongs to an instance that is on a host."""
        owned = self._sim_database.peek(
            "SELECT l.ip, i.id, i.state FROM leases l LEFT JOIN instances i ON i.id = l.instance_id"
            " WHERE l.instance_id IS NOT NULL AND (i.id IS NULL OR i.host_id IS NULL)"
        )
        self._violations += [
            f"{ip} is held by {i[:8] if i else 'no instance'}, which is {state}" for ip, i, state in owned
        ]

    def _answers(self) -> None:
        """What was accepted is there, and a token means one thing."""
        rows = {row[0] for row in self._sim_database.peek("SELECT id FROM instances")}
        for launch in self._clients.launches:
            token = launch.request.client_token
            if launch.lost:
                continue
            if len(set(launch.answers)) > 1:
                self._violations.append(f"{token or 'a launch'} was answered differently: {set(launch.answers)}")
            for instance_id in {i for answer in launch.answers for i in answer} - rows:
                self._violations.append(f"{instance_id[:8]} was promised and has no row")

    def _options(self) -> None:
        """What was terminated is gone."""
        states = dict(self._sim_database.peek("SELECT id, state FROM instances"))
        for action in self._clients.actions:
            for instance_id in action.ids if action.accepted and action.kind == "terminate" else ():
                if states.get(instance_id) != State.DELETED:
                    self._violations.append(f"{instance_id[:8]} was terminated and is {states.get(instance_id)}")
