"""What a process says of itself: problems, probes, and the file in which others on the machine read them."""

import secrets
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from controller.bus.bus import Bus
from controller.bus.consumer import QueueConsumer
from controller.cli.health_file import health_file, processes
from controller.domain.errors import DatabaseUnavailable
from controller.domain.messages import Message, ScheduleReservation
from controller.health import Health, Probe, Problem, thread_problem
from controller.workers.periodic import Periodic
from tests.labs.cloud import make_settings
from tests.labs.waiting import wait_for


def failing() -> str:
    raise RuntimeError("what")


def test_only_problems_are_reported() -> None:
    health = Health()
    health.add("api", lambda: "")
    health.add("bus", lambda: "away", vital=False)
    health.add("network", failing)
    assert health.problems() == [Problem("bus", "away", vital=False), Problem("network", "RuntimeError: what")]


def test_a_thread_that_has_ended() -> None:
    thread = threading.Thread(target=lambda: None, name="short")
    assert thread_problem(thread, stopping=False) == ""
    thread.start()
    thread.join()
    assert "short has ended" in thread_problem(thread, stopping=False)
    assert thread_problem(thread, stopping=True) == ""


def test_probe_reports_answers_and_silence() -> None:
    answers = ["", "refused"]
    asleep = threading.Event()

    def ask() -> str:
        if answers:
            return answers.pop(0)
        asleep.wait(20)
        return ""

    probe = Probe("database", ask, every_s=0.01, late_s=0.1)
    probe.start()
    wait_for(lambda: probe.problem() == "refused")
    wait_for(lambda: "no answer for" in probe.problem())
    asleep.set()
    wait_for(lambda: probe.problem() == "")
    probe.stop()


def test_failed_sweep_is_a_problem_until_one_succeeds() -> None:
    broken = threading.Event()
    broken.set()

    def work() -> None:
        if broken.is_set():
            raise DatabaseUnavailable(what="The database", reason="refused")

    periodic = Periodic("sweep", 0.01, work)
    periodic.start()
    wait_for(lambda: "refused" in periodic.problem())
    broken.clear()
    wait_for(lambda: periodic.problem() == "")
    periodic.stop()


def test_a_consumer_without_its_broker(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, bus__url="amqp://a:b@127.0.0.1:1//", bus__retry_after_s=0.1)
    consumer = QueueConsumer(settings, ["schedule"], lambda _: None, "test")
    consumer.start()
    wait_for(lambda: "refused" in consumer.problem())
    assert consumer.problem().startswith("the bus is away")
    consumer.stop()
    consumer.join(10)


def test_a_consumer_whose_handler_waits_for_the_database(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, DEFAULT__cloud_id=secrets.token_hex(4))  # queues of its own in this process
    there = threading.Event()

    def handle(_message: Message) -> None:
        if not there.is_set():
            raise DatabaseUnavailable(what="The database", reason="refused")

    consumer = QueueConsumer(settings, ["schedule"], handle, "test")
    bus = Bus(settings)
    consumer.start()
    wait_for(lambda: consumer.problem() == "")
    bus.send(ScheduleReservation("r-1"))
    wait_for(lambda: consumer.problem() == "waiting: The database is not available right now: refused.")
    there.set()
    wait_for(lambda: consumer.problem() == "")
    consumer.stop()
    consumer.join(10)
    bus.close()


def test_a_consumer_whose_thread_died(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(QueueConsumer, "_run", lambda _self: None)
    consumer = QueueConsumer(make_settings(tmp_path), ["schedule"], lambda _: None, "test")
    consumer.start()
    wait_for(lambda: "consumer-test has ended" in consumer.problem())


def test_the_file_of_a_process_is_read_while_it_lives(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    problem = Problem("compute", "no hypervisor")
    with health_file(settings, ["compute"]) as file:
        file.write([problem], ready=False)
        (found,) = processes(settings)
        assert (found.services, found.ready, found.problems) == (("compute",), False, (problem,))
        with health_file(settings, ["compute"]) as second:
            second.write([], ready=True)
        assert processes(settings) == [found]
        other = replace(settings, general=replace(settings.general, cloud_id="0000cafe"))
        assert processes(other) == []
        file.write([], ready=True)
        assert processes(settings)[0].problems == ()
    assert processes(settings) == []


def test_the_file_of_a_killed_process_says_nothing(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    with health_file(settings, ["api"]) as file:
        file.write([], ready=True)
        (path,) = (tmp_path / "run/services").glob("*/*")
        left = path.read_text()
    path.write_text(left)
    assert processes(settings) == []


def test_a_unit_keeps_it_in_its_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", f"{tmp_path}/run-api:{tmp_path}/other")
    with health_file(make_settings(tmp_path), ["api"]) as file:
        file.write([], ready=True)
        assert (tmp_path / "run-api/health.json").stat().st_size
