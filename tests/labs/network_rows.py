"""A small cloud in a real SQLite database: two networks, an instance in each."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from controller.conf.settings import General, Network, Settings
from controller.db import models
from controller.db.database import Database
from controller.domain.hosts import HostMode
from controller.domain.images import ImageState
from controller.domain.states import State
from controller.operations.cloud import Cloud, Transaction
from controller.operations.secrets import create_key_file
from tests.labs.bus import FakeBus
from tests.labs.empty_database import create_tables

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
NETWORKS = ("net-00000000000000001", "net-00000000000000002")
INSTANCES = ("i-00000000000000001", "i-00000000000000002")
IPS = ("10.128.0.2", "10.128.4.2")
MACS = ("52:54:00:01:00:02", "52:54:00:02:00:02")
GATEWAYS = ("10.128.0.1", "10.128.4.1")
PUBLIC_KEY = "ssh-ed25519 AAAAC3Nza demo"
_CIDRS = ("10.128.0.0/22", "10.128.4.0/22")


def make_cloud(state_dir: Path, *, driver: str = "none", metadata_port: int = 8775, user_data: str = "") -> Cloud:
    settings = replace(
        Settings(),
        general=replace(General(), state_dir=str(state_dir), cloud_id="0a1b2c3d"),
        network=replace(Network(), driver=driver, metadata_port=metadata_port),
    )
    create_key_file(settings.secret_key_file)
    create_tables(settings)
    cloud = Cloud(settings, Database(settings), FakeBus(), clock=lambda: NOW)
    cloud.write(lambda tx: _fill(tx, user_data))
    return cloud


def open_cloud(state_dir: Path, *, driver: str, metadata_port: int = 8775) -> Cloud:
    """The cloud that another process has made."""
    settings = replace(
        Settings(),
        general=replace(General(), state_dir=str(state_dir), cloud_id="0a1b2c3d"),
        network=replace(Network(), driver=driver, metadata_port=metadata_port),
    )
    return Cloud(settings, Database(settings), FakeBus(), clock=lambda: NOW)


def _fill(tx: Transaction, user_data: str) -> None:
    project, user = "123456789012", "u-1"
    tx.session.add(
        models.Project(id=project, name="demo", quota_instances=9, quota_vcpus=9, quota_memory_mib=9, created_at=tx.now)
    )
    tx.session.flush()
    tx.session.add(
        models.Image(
            id="ami-00000000000000001",
            project_id=project,
            name="demo",
            state=ImageState.AVAILABLE,
            format="qcow2",
            sha256="0" * 64,
            size_bytes=1,
            virtual_size_bytes=1,
            architecture="x86_64",
            created_at=tx.now,
        )
    )
    tx.session.add(
        models.Reservation(
            id="r-00000000000000001",
            project_id=project,
            user_id=user,
            request_sha256="",
            min_count=1,
            user_data=user_data,
            public_key=f"{PUBLIC_KEY}\n",
            created_at=tx.now,
        )
    )
    tx.session.add(
        models.Host(
            id="h1", mode=HostMode.READY, up=True, hypervisor="qemu", architecture="x86_64", zone="z",
            vcpus=8, memory_mib=8, disk_gib=8, vcpus_limit=8, memory_limit_mib=8, disk_limit_gib=8,
            last_seen_at=tx.now, created_at=tx.now,
        )
    )  # fmt: skip
    for number, network_id in enumerate(NETWORKS):
        tx.session.add(
            models.Network(
                id=network_id,
                number=number + 1,
                project_id=project,
                name=f"n{number}",
                physical_network="default",
                vlan=100 + number,
                cidr=_CIDRS[number],
                next_offset=3,
                created_at=tx.now,
            )
        )
    tx.session.flush()
    for number, instance_id in enumerate(INSTANCES):
        tx.session.add(
            models.Instance(
                id=instance_id,
                reservation_id="r-00000000000000001",
                launch_index=number,
                project_id=project,
                state=State.BUILDING,
                state_since=tx.now,
                image_id="ami-00000000000000001",
                instance_type="t1.micro",
                vcpus=1,
                memory_mib=1,
                disk_gib=1,
                key_name="demo",
                zone="",
                network_id=NETWORKS[number],
                host_id="h1",
                created_at=tx.now,
            )
        )
        tx.session.flush()
        tx.session.add(
            models.Lease(network_id=NETWORKS[number], ip=IPS[number], mac=MACS[number], instance_id=instance_id)
        )
