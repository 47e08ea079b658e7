"""What the metadata service knows of an instance."""

from dataclasses import dataclass
from datetime import datetime

from controller.domain.names import lease_hostname


@dataclass(frozen=True)
class Facts:
    """One instance, as its guest may know it. ``public_key`` and ``user_data`` are empty where there are none."""

    instance_id: str
    image_id: str
    reservation_id: str
    project_id: str
    launch_index: int
    instance_type: str
    architecture: str
    zone: str
    region: str
    ip: str
    mac: str
    cidr: str
    network_id: str
    domain: str
    key_name: str
    public_key: str
    user_data: bytes
    launched_at: datetime
    dns_name: str = ""

    @property
    def hostname(self) -> str:
        """The instance's name in the DNS of its network."""
        return f"{lease_hostname(self.dns_name, self.ip)}.{self.domain}"
