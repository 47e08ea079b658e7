"""An agent on a simulated host: guests as commands describe them, and its work."""

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from compute_agent.agent import Agent
from controller.domain.guests import Desired
from controller.domain.messages import GuestSpec, ImageSpec, NicSpec

HOST = "node-1"


NOW = datetime(2024, 5, 1, 12, 0, tzinfo=UTC)


IMAGE = ImageSpec("ami-0123456789abcdef0", "0" * 64, 1024, "qcow2", "file:///nowhere")


def instance(number: int) -> str:
    """The id of the guest with this number."""
    return f"i-{number:017x}"


def guest(number: int = 1, generation: int = 1, desired: Desired = Desired.RUNNING, **more: object) -> GuestSpec:
    """A guest as a command describes it."""
    spec = GuestSpec(
        instance_id=instance(number),
        generation=generation,
        desired=desired,
        project_id="p1",
        name=f"guest-{number}",
        vcpus=1,
        memory_mib=64,
        disk_gib=1,
        image=IMAGE,
        nics=(NicSpec("net-1", 100, "02:00:00:00:00:01", f"10.0.0.{number}", 24),),
    )
    return replace(spec, **more)  # type: ignore[arg-type]


def work_all(agent: Agent) -> None:
    """Carry out everything that wants work."""
    for spec in agent.pending():
        while agent.work(spec.instance_id) is not None:
            continue


class RecordingAgent:
    """Remembers which guests were worked on, and whether any of them twice at once."""

    host = "node-1"

    def __init__(self, work: Callable[[str], float | None] = lambda _: None) -> None:
        self.worked: list[str] = []
        self.done: set[str] = set()
        self.at_once = self.most_at_once = 0
        self._in_hand: set[str] = set()
        self._lock = threading.Lock()
        self._work = work

    def has_work(self, instance_id: str) -> bool:
        return instance_id not in self.done

    def work(self, instance_id: str) -> float | None:
        with self._lock:
            assert instance_id not in self._in_hand
            self._in_hand.add(instance_id)
            self.worked.append(instance_id)
            self.most_at_once = max(self.most_at_once, len(self._in_hand))
        try:
            return self._work(instance_id)
        finally:
            with self._lock:
                self._in_hand.remove(instance_id)
