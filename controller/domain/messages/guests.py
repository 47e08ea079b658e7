"""Guests, as commands describe them and reports show them."""

from dataclasses import dataclass

from controller.domain.guests import Desired, Power
from controller.domain.states import Event

# The generation of a guest that is there, but for which its agent has no request, or has lost it.
UNKNOWN_GENERATION = -1


@dataclass(frozen=True)
class NicSpec:
    """One network interface of a guest."""

    network_id: str
    vlan: int
    mac: str
    ip: str
    prefix_length: int
    physical_network: str = "default"


@dataclass(frozen=True)
class ImageSpec:
    """The image a guest's disk starts as; ``url`` is where this agent may fetch it (file, http or https)."""

    image_id: str
    sha256: str
    size_bytes: int
    format: str
    url: str
    virtual_size_bytes: int = 0


@dataclass(frozen=True)
class GuestSpec:
    """A guest, wholly described: all that an agent needs to make it.

    ``generation`` rises with every request; an agent ignores what is older than what it has seen.
    ``reboot`` asks for one restart at this generation. ``keep_disk``: of a guest that is to be ABSENT, the disk is set
    aside; only its owner's delete removes it at once. ``may_create``: a guest without a disk is made from its
    image; else it is lost, and not replaced by an empty one. ``wished_us`` tells one reboot from another of the same
    generation, which a database that was restored has counted twice: microseconds since 1970, 0: not known.
    """

    instance_id: str
    generation: int
    desired: Desired
    project_id: str
    name: str
    vcpus: int
    memory_mib: int
    disk_gib: int
    architecture: str = "x86_64"
    image: ImageSpec | None = None
    nics: tuple[NicSpec, ...] = ()
    reboot: bool = False
    keep_disk: bool = True
    may_create: bool = True
    wished_us: int = 0


@dataclass(frozen=True)
class GuestReport:
    """What became of a guest at a generation; ``reason`` is for a person.

    ``cause`` is an ``OffCause`` where the guest went off by itself.
    """

    instance_id: str
    generation: int
    event: Event
    reason: str = ""
    cause: str = ""


@dataclass(frozen=True)
class OutdatedRequest:
    """A request that its agent did not carry out: it asked for ``generation``, the agent is at ``newest`` already.

    Equal ones: the agent knows this generation as another request.
    """

    instance_id: str
    generation: int
    newest: int


@dataclass(frozen=True)
class GuestState:
    """A guest as a heartbeat shows it: the newest generation that was carried out, and its power."""

    instance_id: str
    generation: int
    power: Power
