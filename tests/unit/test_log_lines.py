"""What the lines of the log have in common: one key for an instance's id, and what is away is told once a minute."""

import ast
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from compute_agent.workers.pool import WorkerPool
from controller.domain.errors import BusUnavailable, DatabaseUnavailable, Unavailable
from controller.outages import DATABASE, Outages
from tests.labs.agent import RecordingAgent, guest, instance

ROOT = Path(__file__).parents[2]
PACKAGES = ("api", "compute_agent", "controller", "network", "scheduler")
# Other names under which a reader would look for it in vain.
FORBIDDEN = {"instance_id", "guest", "guest_id", "vm", "domain", "uuid"}
LEVELS = {"debug", "info", "warning", "error", "critical", "exception", "log"}


def log_calls() -> Iterator[tuple[str, ast.Call]]:
    """Every call of a logger in the product, with where it is."""
    for package in PACKAGES:
        for file in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                    of, level = ast.unparse(node.func.value), node.func.attr
                    told = of == "OUTAGES" and level == "tell"
                    if told or (re.fullmatch(r"_?log(ger)?", of) and level in LEVELS):
                        yield f"{file.relative_to(ROOT)}:{node.lineno}", node


CALLS = list(log_calls())


def test_there_are_calls_to_look_at() -> None:
    assert len(CALLS) > 90


@pytest.mark.parametrize(("where", "call"), CALLS, ids=[where for where, _ in CALLS])
def test_an_instance_is_named_by_its_one_key(where: str, call: ast.Call) -> None:
    keys = {k.arg for k in call.keywords if k.arg}
    assert not keys & FORBIDDEN, where
    for keyword in call.keywords:
        value = ast.unparse(keyword.value)
        names_one = re.search(r"\binstance_id\b|\b(instance|guest|view\.instance)\.id\b", value)
        assert not (names_one and keyword.arg and keyword.arg != "instance"), f"{where}: {keyword.arg}={value}"
    text = " ".join(a.value for a in call.args if isinstance(a, ast.Constant) and isinstance(a.value, str))
    if re.search(r"\b(instance|guest|console)\b", text):  # one of them, not several
        assert "instance" in keys, f"{where}: {text}"


def test_what_drivers_log_while_they_work_on_a_guest_carries_its_id() -> None:
    seen: list[dict[str, Any]] = []
    done = threading.Event()
    agent = RecordingAgent(lambda _: seen.append(structlog.contextvars.get_contextvars()))
    pool = WorkerPool(1, lambda _: done.set())
    try:
        pool.offer(agent, guest(1))  # type: ignore[arg-type]
        assert done.wait(10)
    finally:
        pool.stop(5)
    assert seen == [{"host": agent.host, "instance": instance(1)}]


class Away:
    """A clock, and what was told by it."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.outages = Outages(lambda: self.now)
        self.log = structlog.get_logger("away")

    def fail(self, error: Unavailable) -> None:
        self.outages.warn(self.log, "round skipped", error, work="sweep")


def database(reason: str = "no route") -> DatabaseUnavailable:
    return DatabaseUnavailable(what=DATABASE, reason=reason)


def test_what_is_away_is_told_once_a_minute_and_once_when_it_is_back() -> None:
    away = Away()
    with capture_logs() as lines:
        for _ in range(240):  # two minutes, two tries a second
            away.fail(database())
            away.now += 0.5
        away.fail(BusUnavailable(what="The message bus", reason="closed"))
        away.outages.over(DATABASE)
        away.outages.over(DATABASE)
    assert [(line["event"], line.get("what"), line.get("away_s")) for line in lines] == [
        ("round skipped", None, None),
        ("round skipped", None, None),
        ("round skipped", None, None),  # the broker
        ("it answers again", DATABASE, 120.0),
    ]
    assert "no route" in lines[0]["reason"]


def test_what_comes_and_goes_does_not_fill_the_log() -> None:
    away = Away()
    with capture_logs() as lines:
        for _ in range(100):
            away.fail(database())
            away.now += 0.1
            away.outages.over(DATABASE)
    assert [line["event"] for line in lines] == ["round skipped", "it answers again"]
