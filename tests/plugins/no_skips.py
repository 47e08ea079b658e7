"""Under CI=true a test that needs real parts may not be skipped: what it would have shown would be missing."""

import os
from collections.abc import Generator

import pytest

MARKS = ("functional", "system")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn the skip of a marked test into a failure that says why it was skipped."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and _must_run(item):
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI=true does not allow: {_reason(report.longrepr)}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Likewise for a whole module that skips itself."""
    report = yield
    folders = {f"tests/{mark}" for mark in MARKS}
    if report.outcome == "skipped" and _strict() and any(f in collector.nodeid for f in folders):
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI=true does not allow: {_reason(report.longrepr)}"
    return report


def _must_run(item: pytest.Item) -> bool:
    return _strict() and any(item.get_closest_marker(mark) for mark in MARKS)


def _strict() -> bool:
    return os.environ.get("CI", "").lower() in ("true", "1")


def _reason(longrepr: object) -> str:
    return str(longrepr[2]) if isinstance(longrepr, tuple) else str(longrepr)
