"""A transaction that locks rows for long is told by name."""

import pytest
from structlog.testing import capture_logs

from controller.operations import cloud
from controller.operations.cloud import Transaction
from tests.labs.cloud import TestCloud


def _look(_tx: Transaction) -> None: ...


def test_a_long_transaction_is_told_by_name(site: TestCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    with capture_logs() as short:
        site.cloud.write(_look)
    monkeypatch.setattr(cloud, "SLOW_S", -1.0)
    with capture_logs() as long:
        site.cloud.write(_look)
    assert not short
    (line,) = long
    assert line["operation"] == "_look"
    assert line["seconds"] >= 0
