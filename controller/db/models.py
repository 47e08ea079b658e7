"""All tables under one name, for queries and for the migrations."""

from controller.db.base import Base
from controller.db.host import Claim, Host, HostMode, JoinToken, RemovedHost, StrayGuest
from controller.db.image import Image, ImageState, InstanceType
from controller.db.instance import (
    DeadLetter,
    GroupStrategy,
    Instance,
    PlacementGroup,
    Reservation,
    ShutdownBehavior,
    Step,
)
from controller.db.network import Lease, LeasePin, Network, NetworkKind
from controller.db.project import AccessKey, Cloud, KeyPair, Project, Tag, User
from controller.db.service import Service

__all__ = [
    "AccessKey",
    "Base",
    "Claim",
    "Cloud",
    "DeadLetter",
    "GroupStrategy",
    "Host",
    "HostMode",
    "Image",
    "ImageState",
    "Instance",
    "InstanceType",
    "JoinToken",
    "KeyPair",
    "Lease",
    "LeasePin",
    "Network",
    "NetworkKind",
    "PlacementGroup",
    "Project",
    "RemovedHost",
    "Reservation",
    "Service",
    "ShutdownBehavior",
    "Step",
    "StrayGuest",
    "Tag",
    "User",
]
