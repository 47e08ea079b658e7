"""What happens to the site now and then, at random times."""

from random import Random
from typing import TYPE_CHECKING

from controller.domain.guests import Power
from tests.simulation.bus import Envelope
from tests.simulation.faults import Disaster
from tests.simulation.simulator import Process

if TYPE_CHECKING:
    from tests.simulation.site import Site

_CONTROLLER_CLOCK = "clock of a controller steps"
_SHARE_WITH_STEP = 0.4
_POISON = ("{", '{"kind":"Unheard"}', '{"kind":"ReconcileGuests","host":7}', "[]", "\x00")


class Disasters:
    """Lets a seed's disasters happen."""

    def __init__(self, site: "Site") -> None:
        self._site = site
        self._simulator = site.simulator
        self._random = site.simulator.random

    def plan(self, within_s: float) -> None:
        """Each at its time."""
        for disaster in self._simulator.faults.disasters:
            self._simulator.at(self._random.uniform(0, within_s), lambda d=disaster: self._happen(d))  # type: ignore[misc]
        # Drawn apart: a seed without it is the run that it was before there was such a thing.
        clocks = Random(f"clocks of {self._site.seed}")
        if clocks.random() < _SHARE_WITH_STEP:
            controller = clocks.choice(self._site.plane.controllers)
            skew_s = clocks.uniform(-3600, 3600)
            self._simulator.at(clocks.uniform(0, within_s), lambda: self._step(controller, skew_s))

    def _step(self, controller: Process, skew_s: float) -> None:
        self._simulator.faults.counts[_CONTROLLER_CLOCK] += 1
        self._simulator.note(f"DISASTER {_CONTROLLER_CLOCK}, by {skew_s:.0f} s", controller)
        controller.skew_s = skew_s

    def _happen(self, disaster: Disaster) -> None:
        simulator, random, site = self._simulator, self._random, self._site
        if simulator.faults.calm:
            return
        simulator.faults.counts[disaster] += 1
        host = random.choice(site.hosts)
        process = random.choice(site.processes)
        long_s = random.choice((5, 30, 200)) * random.random()
        simulator.note(f"DISASTER {disaster}")
        match disaster:
            case Disaster.KILL:
                simulator.kill(process)
            case Disaster.FREEZE:
                simulator.note(f"stopped for {long_s:.1f} s", process)
                process.frozen_until = simulator.now + long_s
                process.outages.append((simulator.now, simulator.now + long_s))
            case Disaster.BROKER_DOWN | Disaster.BROKER_EMPTIED:
                site.broker.go_down()
                site.oracle.outages.append((simulator.now, simulator.now + long_s))
                simulator.at(long_s, lambda: site.broker.come_up(empty=disaster is Disaster.BROKER_EMPTIED))
            case Disaster.DATABASE_DOWN:
                site.database_down_for(long_s)
            case Disaster.HOST_SILENT:
                simulator.note(f"cut off for {long_s:.1f} s", host.process)
                host.process.cut_off_until = max(host.process.cut_off_until, simulator.now + long_s)
                host.process.outages.append((simulator.now, simulator.now + long_s))
                simulator.at(long_s + 0.001, site.broker.pump_all)
            case Disaster.HOST_REBOOTED:
                if not host.away:
                    host.reboot()
            case Disaster.GUEST_OFF:
                running = [i for i, (power, *_) in site.guests.guests(host.hardware).items() if power is Power.RUNNING]
                if running:
                    host.power_off_guest(random.choice(running))
            case Disaster.JOURNAL_LOST:
                host.lose_journal()
            case Disaster.CLOCK_STEPS:
                host.process.skew_s = random.uniform(-3600, 3600)
            case Disaster.POISON:
                queue = random.choice(("schedule", "network", "events", "heartbeats", f"compute.{host.name}"))
                body = random.choice(_POISON)
                site.checker.poison.add(body)
                site.broker.publish(Envelope(queue, body), 0.01)
