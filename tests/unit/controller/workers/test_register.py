"""A process's register: no service starts on the wrong tables, and rows live as long as their services."""

from pathlib import Path

import pytest
from sqlalchemy import text

from api.health import health
from controller.db.models import Cloud
from controller.domain.errors import ConfigurationError
from controller.domain.release import RELEASE
from controller.operations.cloud import Transaction
from controller.operations.database import schema
from controller.operations.services import services
from controller.workers.register import ServiceRegister
from tests.labs.cloud import TestCloud


@pytest.fixture
def site(tmp_path: Path) -> TestCloud:
    return TestCloud.create(tmp_path)


def revision_is(site: TestCloud, revision: str) -> None:
    site.cloud.write(lambda tx: tx.session.execute(text(f"UPDATE alembic_version SET version_num = '{revision}'")))


def oldest_is(site: TestCloud, release: str) -> None:
    def change(tx: Transaction) -> None:
        row = tx.session.get(Cloud, 1)
        assert row is not None
        row.oldest_release = release

    site.cloud.write(change)


def registered(site: TestCloud) -> list[tuple[str, str]]:
    return [(s.name, s.release) for s in site.cloud.read(services.list_services)]


def test_rows_live_as_long_as_the_services(site: TestCloud) -> None:
    register = ServiceRegister(site.cloud, ["api", "scheduler"])
    register.start()
    assert registered(site) == [("api", RELEASE), ("scheduler", RELEASE)]
    register.stop()
    assert registered(site) == []


def refusal(site: TestCloud) -> str:
    with pytest.raises(ConfigurationError) as caught:
        ServiceRegister(site.cloud, ["api"]).start()
    assert registered(site) == []
    return str(caught.value)


def test_older_tables_are_refused(site: TestCloud) -> None:
    revision_is(site, "0004")
    assert "revision 0004" in (reason := refusal(site))
    assert "`pileus db upgrade`" in reason


def test_newer_tables_that_let_this_release_run_are_taken(site: TestCloud) -> None:
    revision_is(site, "0999")
    oldest_is(site, RELEASE)
    register = ServiceRegister(site.cloud, ["api"])
    register.start()
    assert registered(site) == [("api", RELEASE)]
    register.stop()
    schema.upgrade(site.cloud.settings)  # nothing to do, and no error


def test_newer_tables_that_do_not_are_refused(site: TestCloud) -> None:
    revision_is(site, "0999")
    oldest_is(site, "9.0.0")
    assert "install the release 9.0.0" in (reason := refusal(site))
    assert f"`pileus db downgrade {schema.newest()}`" in reason
    with pytest.raises(ConfigurationError, match=r"9\.0\.0"):
        schema.upgrade(site.cloud.settings)


def test_a_release_that_an_operator_has_ruled_out_is_refused(site: TestCloud) -> None:
    oldest_is(site, "9.0.0")
    assert "install 9.0.0" in refusal(site)


def test_no_tables_are_refused(site: TestCloud) -> None:
    site.close()
    schema.downgrade(site.cloud.settings, "base")
    with pytest.raises(ConfigurationError, match="empty"):
        ServiceRegister(site.cloud, ["api"]).start()


def test_tables_that_become_wrong_end_the_process(site: TestCloud) -> None:
    ended: list[bool] = []
    register = ServiceRegister(site.cloud, ["api"], end=lambda: ended.append(True))
    register.renew()
    assert (ended, register.refused) == ([], "")
    revision_is(site, "0004")
    register.renew()
    assert ended == [True]
    assert "`pileus db upgrade`" in register.refused


def test_a_door_on_wrong_tables_is_not_healthy(site: TestCloud) -> None:
    assert health(site.cloud)[1] == 200
    oldest_is(site, "99.0")
    document, status = health(site.cloud)
    assert (status, "install 99.0" in document["database"]) == (503, True)
    revision_is(site, "0004")
    document, status = health(site.cloud)
    assert (status, "`pileus db upgrade`" in document["database"]) == (503, True)
