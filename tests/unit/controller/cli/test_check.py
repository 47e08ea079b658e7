"""`pileus check` on an embedded cloud, and where things are broken: one line each, never a traceback."""

import re
import threading
import time
from pathlib import Path

import pytest

from controller.cli.check import probes_for
from controller.cli.checks import machine
from controller.cli.checks.item import Item, Status, Subject, ok, run_probes
from controller.cli.configuration_file import changed_text
from controller.conf import Settings
from controller.domain.errors import CommandFailed
from controller.operations import secrets
from controller.programs import nft
from tests.labs.cloud import make_settings
from tests.labs.command import Command

HERE = Subject(Settings(), ["api"], {})


def change(command: Command, section: str, name: str, value: object) -> None:
    file = command.state / "pileus.conf"
    file.write_text(changed_text(file.read_text(), {(section, name): value}))


def statuses(command: Command, *arguments: str) -> dict[str, str]:
    result = command.result("--output", "json", "check", *arguments)
    assert result.exit_code in (0, 1), result.output
    return {m[1]: m[2] for m in re.finditer(r'"name": "(.+)",\s+"status": "(.+)"', result.stdout)}


def test_a_new_cloud_is_well(command: Command) -> None:
    result = command.result("check")
    assert result.exit_code == 0, result.output
    assert "ok    database         SQLite" in result.stdout
    assert set(statuses(command).values()) == {"ok"}


def test_without_a_cloud_there_is_nothing_to_check(nowhere: Command) -> None:
    assert "no cloud here" in str(nowhere.result("check").exception)


@pytest.mark.parametrize("arguments", [["nothing"], ["--processes", "api"], ["--processes", "nobody=2"]])
def test_usage(command: Command, arguments: list[str]) -> None:
    assert command.result("check", *arguments).exit_code == 2


def test_an_unused_option_is_named(command: Command) -> None:
    with (command.state / "pileus.conf").open("a") as file:
        file.write("\n[network]\ntrnuk = eth1\n[netwrok]\ntrunk = eth1\n")
    result = command.result("check")
    assert result.exit_code == 0
    (line,) = (line for line in result.stdout.splitlines() if line.startswith("warn"))
    assert line.endswith("pileus.conf sets [network] trnuk, [netwrok] trunk")


def test_each_problem_is_one_line(command: Command) -> None:
    (command.state / "secret.key").chmod(0o644)
    command.state.chmod(0o777)
    change(command, "database", "pool_size", 1)
    change(command, "database", "max_overflow", 0)
    change(command, "bus", "url", "amqp://guest:guest@127.0.0.1:1//")
    result = command.result("check")
    assert result.exit_code == 1
    assert "mode 0644\n" in result.stdout
    assert f"chmod g-wx,o-rwx {command.state}/secret.key" in result.stdout  # the group of the services may read it
    assert "can be written by anybody" in result.stdout
    assert "set pool_size to 8 or more" in result.stdout
    assert "127.0.0.1:1 cannot be reached" in result.stdout
    assert "Traceback" not in result.output
    failed = {n for n, s in statuses(command).items() if s == "fail"}
    assert failed == {"secret key file", "state folder", "connection pool", "bus"}


def test_another_clouds_key(command: Command) -> None:
    (command.state / "secret.key").write_text("ab" * 32)
    for cached in (secrets._fernet, secrets._derive):  # each command is a process of its own
        cached.cache_clear()
    assert statuses(command, "api")["secret key"] == "fail"


def test_a_database_that_is_not_there(command: Command) -> None:
    for path in command.state.glob("pileus.db*"):
        path.unlink()
    assert statuses(command)["database"] == "fail"
    assert not (command.state / "pileus.db").exists()


def test_tables_of_an_older_release(command: Command) -> None:
    command("db", "downgrade", "0001", "--yes")
    found = statuses(command)
    assert (found["database"], found["schema"]) == ("ok", "fail")


def test_an_agent_is_not_asked_for_a_database(command: Command) -> None:
    assert set(statuses(command, "compute")) == {"options", "running services", "bus", "state folder", "open files"}


def test_real_nodes_are_looked_at() -> None:
    real = make_settings(Path("/s"), network__driver="linux", compute__driver="libvirt")
    names = probes_for(Subject(real, ["network", "metadata", "compute"], {}))
    wanted = {"network programs", "forwarding", "firewall", "DNS port", "metadata port", "trunk", "libvirt", "KVM"}
    assert wanted <= set(names)
    simulated = make_settings(Path("/s"))
    assert not wanted & set(probes_for(Subject(simulated, ["network", "metadata", "compute"], {})))


def test_a_probe_that_hangs_does_not_hold_up_the_others() -> None:
    release = threading.Event()

    def hangs(_: Subject) -> list[Item]:
        release.wait(30)
        return []

    def breaks(_: Subject) -> list[Item]:
        raise CommandFailed(program="ip", status=1, stderr="no")

    def is_surprised(_: Subject) -> list[Item]:
        raise ZeroDivisionError("by nothing")

    begin = time.monotonic()
    items = run_probes(
        {"a": hangs, "b": breaks, "c": is_surprised, "d": lambda _: [ok("d", "fine")]}, HERE, deadline_s=0.2
    )
    release.set()
    assert time.monotonic() - begin < 5
    assert [(i.name, i.status) for i in items] == [
        ("a", Status.FAIL), ("b", Status.FAIL), ("c", Status.FAIL), ("d", Status.OK),
    ]  # fmt: skip
    assert items[0].seen == "no answer within 0.2 s"
    assert "ZeroDivisionError" in items[2].seen


@pytest.mark.parametrize(
    ("chain", "status"),
    [
        ('{"family": "ip", "table": "filter", "name": "FORWARD", "hook": "forward", "policy": "drop"}', "warn"),
        ('{"family": "ip", "table": "pileus_c10dc10d", "name": "f", "hook": "forward", "policy": "drop"}', "ok"),
        ('{"family": "ip", "table": "filter", "name": "INPUT", "hook": "input", "policy": "drop"}', "ok"),
    ],
)
def test_another_firewall(monkeypatch: pytest.MonkeyPatch, chain: str, status: str) -> None:
    monkeypatch.setattr(nft, "run", lambda *_, **__: f'{{"nftables": [{{"metainfo": {{}}}}, {{"chain": {chain}}}]}}')
    (item,) = machine.firewall(HERE)
    assert item.status == status


@pytest.mark.parametrize(("address", "listens"), [("00000000:0035", True), ("0100007F:0035", False)])
def test_who_listens_on_the_dns_port(tmp_path: Path, address: str, listens: bool) -> None:
    (tmp_path / "udp").write_text(f"  sl  local_address rem_address st\n  1: {address} 00000000:0000 07 0:0\n")
    assert machine._listens_everywhere(tmp_path / "udp") is listens
