"""Doorbells between the services."""

from collections.abc import Sequence
from dataclasses import dataclass

from controller.domain.messages.message import Message


@dataclass(frozen=True)
class ScheduleReservation(Message):
    """To a scheduler: the rows of this reservation that are REQUESTED want a host, and those of ``more``. One of
    version 1 does not know of ``more``: it gets a doorbell for each."""

    KIND = "ScheduleReservation"
    reservation_id: str
    more: tuple[str, ...] = ()

    @property
    def queue(self) -> str:
        return "schedule"

    def for_oldest(self) -> Sequence[Message]:
        return [ScheduleReservation(r) for r in (self.reservation_id, *self.more)] if self.more else (self,)


@dataclass(frozen=True)
class PrepareNetworks(Message):
    """To the network service: make bridges, DHCP and DNS of these networks equal to the rows, then have the
    hosts build these instances. With no instances: only make equal."""

    KIND = "WireInstances"
    network_ids: tuple[str, ...]
    instance_ids: tuple[str, ...] = ()

    @property
    def queue(self) -> str:
        return "network"
