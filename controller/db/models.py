"""All tables under one name, for queries and for the migrations."""

from controller.db.accounts import AccessKey, Cloud, KeyPair, Project, Tag, User
from controller.db.base import Base
from controller.db.hosts import Claim, Host, JoinToken, RemovedHost, StrayGuest
from controller.db.images import Image, InstanceType
from controller.db.instances import DeadLetter, Instance, InstanceEvent, PlacementGroup, Reservation
from controller.db.networks import Lease, LeasePin, Network
from controller.db.services import Service

__all__ = [
    "AccessKey",
    "Base",
    "Claim",
    "Cloud",
    "DeadLetter",
    "Host",
    "Image",
    "Instance",
    "InstanceEvent",
    "InstanceType",
    "JoinToken",
    "KeyPair",
    "Lease",
    "LeasePin",
    "Network",
    "PlacementGroup",
    "Project",
    "RemovedHost",
    "Reservation",
    "Service",
    "StrayGuest",
    "Tag",
    "User",
]
