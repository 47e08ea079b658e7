"""`pileus db downgrade`: of a stopped cloud, and only after it was said what is lost."""

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import text

from controller.cli.daemon import Daemon
from controller.conf import load_settings
from controller.domain.errors import ConfigurationError, InvalidParameter
from controller.domain.messages import HostReported
from controller.operations.cloud import Cloud
from controller.operations.database import schema
from controller.operations.database.downgrade import losses, users
from controller.operations.hosts import renewal
from controller.workers.register import ServiceRegister
from tests.labs.cloud import TestCloud
from tests.labs.command import Command

Refused = Callable[..., str]


@pytest.fixture
def cloud(command: Command) -> Cloud:
    return Cloud.connect(load_settings(command.state / "pileus.conf"))


def revision(command: Command) -> str:
    return str(command.json("db", "current")["revision"])


def test_a_running_service_is_named(command: Command, cloud: Cloud, refused: Refused) -> None:
    register = ServiceRegister(cloud, ["api"])
    register.start()
    try:
        said = refused(command, "db", "downgrade", "base", "--yes")
    finally:
        register.stop()
    assert f"(process {os.getpid()}, heard of at " in said
    assert "the cloud runs: api on " in said
    assert revision(command) == schema.newest()


def test_services_of_one_process_are_named_together(command: Command, cloud: Cloud, refused: Refused) -> None:
    register = ServiceRegister(cloud, ["api", "network"])
    register.start()
    try:
        said = refused(command, "db", "downgrade", "base", "--yes")
    finally:
        register.stop()
    assert said.startswith("the cloud runs: api, network on ")
    assert said.count("process") == 1
    assert "for 60 s" in said


def test_an_embedded_cloud_that_was_just_stopped_is_stopped(command: Command, cloud: Cloud) -> None:
    facts = HostReported("h1", datetime.now(UTC).isoformat(), "b", "simulated", vcpus=8, memory_mib=1024, disk_gib=10)
    cloud.write(lambda tx: renewal.renew_hosts(tx, [facts]))
    command("db", "downgrade", "-1", "--yes")
    assert revision(command) == schema.revisions()[1]


def test_the_embedded_cloud_is_named(command: Command, refused: Refused) -> None:
    with Daemon(command.state).held():
        said = refused(command, "db", "downgrade", "base", "--yes")
    assert f"`pileus up` here, as process {os.getpid()}" in said
    assert "`pileus down`" in said
    assert revision(command) == schema.newest()


def test_an_older_controller_is_seen_by_its_heartbeats(tmp_path: Path) -> None:
    site = TestCloud.create(tmp_path)
    site.heartbeat("h1")
    site.heartbeat("h2")
    schema.downgrade(site.cloud.settings, "0004")
    (said,) = site.cloud.read(users)
    assert said == "a controller, which took heartbeats of 2 hosts, the last one at 2026-01-01T00:00:00Z"
    site.clock.advance(61)
    assert site.cloud.read(users) == []
    site.close()


def test_without_yes_it_is_only_said(command: Command) -> None:
    result = command.result("db", "downgrade", "base")
    assert "lost: table users: 1 row\n" in result.stdout
    assert "lost: table hosts: 0 rows\n" in result.stdout
    assert "nothing was done" in str(result.exception)
    assert revision(command) == schema.newest()
    result = command.result("db", "downgrade", "base", "--yes")
    assert result.exit_code == 0
    assert "lost: table users: 1 row\n" in result.stdout
    assert revision(command) == "None"


@pytest.mark.parametrize("wrong", ["9999", "0005", "head"])
def test_there_is_no_such_revision_below(command: Command, refused: Refused, wrong: str) -> None:
    assert "REVISION" in refused(command, "db", "downgrade", wrong, "--yes")
    assert revision(command) == schema.newest()


def test_one_step_back(command: Command) -> None:
    command("db", "downgrade", "-1", "--yes")
    assert revision(command) == schema.revisions()[1]


def test_what_would_be_lost(tmp_path: Path, database_url: str) -> None:
    site = TestCloud.create(tmp_path, database_url)
    site.heartbeat("h1", guest_overhead_mib=64)
    site.heartbeat("h2")
    found = {(loss.table, loss.column): loss.rows for loss in losses(site.cloud.settings, "0004")}
    assert found["hosts", "guest_overhead_mib"] == 1  # the other one has what a new row has
    assert found["services", ""] == 0
    assert ("hosts", "id") not in found
    with pytest.raises(InvalidParameter):
        losses(site.cloud.settings, "nowhere")
    site.cloud.write(lambda tx: tx.session.execute(text("UPDATE alembic_version SET version_num = '9999'")))
    with pytest.raises(ConfigurationError, match="newer release"):
        losses(site.cloud.settings, "0004")
    site.close()
