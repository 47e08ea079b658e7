"""All tables under one name, for queries and for the migrations."""

from controller.db.accounts import AccessKey, Cloud, KeyPair, Project, Tag, User
from controller.db.base import Base
from controller.db.hosts import Claim, Host, HostMode, JoinToken, RemovedHost, StrayGuest
from controller.db.images import Image, ImageState, InstanceType
from controller.db.instances import (
    DeadLetter,
    GroupStrategy,
    Instance,
    InstanceEvent,
    PlacementGroup,
    Reservation,
    ShutdownBehavior,
)
from controller.db.networks import Lease, LeasePin, Network, NetworkKind
from controller.db.services import Service

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
    "InstanceEvent",
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
    "StrayGuest",
    "Tag",
    "User",
]
