"""Hosts over REST: joining."""

from dataclasses import asdict, dataclass
from typing import Any

from controller.domain.messages import HostReported
from controller.operations.cloud import Cloud
from controller.operations.hosts.join import Joined, join


@dataclass(frozen=True)
class JoinBody:
    """What a host sends to join."""

    token: str
    name: str
    hypervisor: str
    vcpus: int
    memory_mib: int
    disk_gib: int
    boot_id: str = ""
    architecture: str = "x86_64"
    zone: str = ""
    labels: tuple[str, ...] = ()
    disk_backends: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    allowed_macs: tuple[str, ...] | None = None
    probe_error: str = ""


def join_host(cloud: Cloud, body: JoinBody) -> tuple[int, dict[str, Any]]:
    """201, or 200 where the host was known already; what its agent's configuration needs. Raises as ``join``."""
    facts = HostReported(
        host=body.name,
        at=cloud.clock().isoformat(),
        boot_id=body.boot_id,
        hypervisor=body.hypervisor,
        vcpus=body.vcpus,
        memory_mib=body.memory_mib,
        disk_gib=body.disk_gib,
        architecture=body.architecture,
        zone=body.zone,
        labels=body.labels,
        disk_backends=body.disk_backends,
        images=body.images,
        allowed_macs=body.allowed_macs,
        probe_error=body.probe_error,
    )
    joined: Joined = cloud.write(lambda tx: join(tx, body.token, facts))
    return 200 if joined.renewed else 201, asdict(joined)
