"""A database that is away is one line in the log, however often it is tried, and one when it is back."""

import itertools
from pathlib import Path

import pytest
from sqlalchemy import text
from structlog.testing import capture_logs

from controller.db import database as of_database
from controller.db.database import Database
from controller.outages import Outages
from controller.workers import periodic as of_periodic
from controller.workers.periodic import Periodic
from tests.labs.cloud import make_settings
from tests.labs.servers.guarded import wait_until
from tests.labs.servers.postgresql import PostgreSQL

pytestmark = pytest.mark.functional


def test_one_line_and_one_when_it_is_back(
    tmp_path: Path, postgresql: PostgreSQL, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = Outages()
    monkeypatch.setattr(of_database, "OUTAGES", ours)
    monkeypatch.setattr(of_periodic, "OUTAGES", ours)
    database = Database(make_settings(tmp_path, postgresql.new_database()))
    tries = itertools.count()
    tried = 0

    def ask() -> None:
        nonlocal tried
        tried = next(tries)
        database.read(lambda session: session.execute(text("SELECT 1")).scalar_one())

    def tried_again(times: int) -> None:
        target = tried + times
        wait_until(lambda: tried >= target, deadline_s=60, what=lambda: f"{tried} of {target} rounds")

    services = [Periodic(f"round {n}", 0.02, ask) for n in range(3)]
    with capture_logs() as lines:
        for service in services:
            service.start()
        try:
            tried_again(10)
            postgresql.stop()
            tried_again(50)
            postgresql.start()
            tried_again(50)
        finally:
            for service in services:
                service.stop()
            postgresql.start()
    database.close()
    assert [line["event"] for line in lines] == ["round skipped", "it answers again"]
    assert lines[1]["what"] == "The database"
