"""The operator's nouns, as stories on a cloud that is not up."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from tests.labs.command import Command

LISTINGS = ("host", "network", "lease", "image", "instance", "instance-type", "project", "user", "dead-letter")


@pytest.mark.parametrize("noun", LISTINGS)
def test_every_listing_speaks_json_on_either_side(command: Command, noun: str) -> None:
    assert isinstance(command.json(noun, "list"), list)
    assert isinstance(json.loads(command(noun, "list", "--output", "json")), list)
    assert command(noun, "list").splitlines()[0].isupper()


def test_a_project_with_a_user_and_a_network(command: Command, refused: Callable[..., str]) -> None:
    project = command.json("project", "create", "lab")
    assert len(project["id"]) == 12
    assert command.json("project", "quota", "lab", "--instances", "3")["quota_instances"] == 3
    user = command.json("user", "create", "ada", "--project", "lab")
    assert user["project_id"] == project["id"]
    assert all(user[secret] for secret in ("access_key", "secret_key", "token", "password"))
    assert command.json("user", "token", "ada")["token"] != user["token"]
    command("user", "disable", "ada")
    assert {u["name"]: u["enabled"] for u in command.json("user", "list")} == {"admin": True, "ada": False}

    network = command.json("network", "create", "blue", "--project", "lab", "--cidr", "10.1.0.0/24", "--vlan", "200")
    assert (network["vlan"], network["cidr"]) == (200, "10.1.0.0/24")
    assert "overlaps" in refused(command, "network", "create", "red", "--cidr", "10.1.0.0/25")
    command("network", "delete", network["id"])
    assert command.json("network", "list") == []


def test_an_image_comes_and_goes(command: Command, tmp_path: Path, refused: Callable[..., str]) -> None:
    file = tmp_path / "disk.raw"
    file.write_bytes(bytes(4096))
    image = command.json("image", "import", str(file), "--name", "demo", "--if-missing")
    assert image["format"] == "raw"
    assert command.json("image", "import", str(file), "--name", "demo", "--if-missing")["id"] == image["id"]
    assert command.json("image", "show", image["id"]) == image
    labelled = command.json("image", "import", str(file), "--name", "cuda", "--label", "gpu")
    assert (image["required_labels"], labelled["required_labels"]) == ("", "gpu")
    file.write_bytes(b"x" + bytes(4095))
    assert command.json("image", "import", str(file), "--name", "demo", "--if-missing")["id"] != image["id"]
    assert {f["result"] for f in command.json("image", "prune", "--dry-run")} == {"kept"}
    command("image", "deregister", image["id"])
    assert image["id"] not in {i["id"] for i in command.json("image", "list")}
    file.write_bytes(b"QFI\xfb" + bytes(200))
    assert "refused" in refused(command, "image", "import", str(file), "--name", "broken")


def test_a_file_that_no_image_has_is_pruned(command: Command, tmp_path: Path) -> None:
    store = command.state / "images"
    store.mkdir()
    stranger = store / f"{'ab' * 32}.raw"
    stranger.write_bytes(b"disk")
    os.utime(stranger, (0, 0))
    would = {"name": stranger.name, "size_bytes": 4, "needed_by": "", "result": "would be removed"}
    assert command.json("image", "prune", "--dry-run") == [would]
    assert stranger.exists()
    assert command("image", "prune").splitlines()[-1].split() == [stranger.name, "4", "-", "removed"]
    assert not stranger.exists()
    assert command.json("image", "prune") == []


@pytest.mark.parametrize("revision", ["0004", "base"])
def test_commands_on_tables_of_another_release_say_what_to_do(
    command: Command, revision: str, refused: Callable[..., str]
) -> None:
    command("db", "downgrade", revision, "--yes")
    for arguments in (("host", "list"), ("service", "require", "0.2.0"), ("project", "create", "lab"), ("audit",)):
        assert "`pileus db upgrade`" in refused(command, *arguments)
    command("db", "upgrade")
    assert command.json("host", "list") == []


def test_commands_of_a_wrong_release_change_nothing(command: Command, refused: Callable[..., str]) -> None:
    engine = create_engine(f"sqlite:///{command.state / 'pileus.db'}")
    with engine.begin() as connection:
        connection.execute(text("UPDATE cloud SET oldest_release = '9.9.0'"))
    engine.dispose()
    assert "install 9.9.0" in refused(command, "project", "create", "lab")
    assert [p["name"] for p in command.json("project", "list")] == ["default"]


def test_a_new_instance_type(command: Command) -> None:
    sizes = ("--vcpus", "3", "--memory-mib", "100", "--disk-gib", "2")
    command("instance-type", "add", "x.one", *sizes, "--label", "ssd", "--label", "gpu")
    assert {t["name"]: t["required_labels"] for t in command.json("instance-type", "list")}["x.one"] == "gpu,ssd"


@pytest.mark.parametrize(
    "arguments",
    [
        ("host", "show", "nobody"),
        ("host", "drain", "nobody"),
        ("instance", "explain", "i-00000000000000000"),
        ("instance", "terminate", "i-00000000000000000"),
        ("network", "delete", "net-0"),
        ("project", "quota", "nobody"),
        ("user", "key", "create", "nobody"),
        ("dead-letter", "show", "7"),
    ],
)
def test_what_is_not_there(command: Command, refused: Callable[..., str], arguments: tuple[str, ...]) -> None:
    assert "does not exist" in refused(command, *arguments)


def test_without_a_cloud_the_way_to_one_is_named(nowhere: Command, refused: Callable[..., str]) -> None:
    assert "pileus init" in refused(nowhere, "host", "list")


def test_an_error_is_one_line_and_status_1(nowhere: Command) -> None:
    done = program("--state", str(nowhere.state), "status")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_a_mistake_in_usage_is_status_2() -> None:
    assert program("host", "list", "--nonsense").returncode == 2


@pytest.mark.parametrize("letter", ["0", "9" * 20])
def test_no_dead_letter_has_such_a_number(command: Command, letter: str) -> None:
    for verb in ("show", "replay", "discard"):
        assert command.result("dead-letter", verb, letter).exit_code == 2


def test_the_database_goes_down_and_up_again(command: Command) -> None:
    revision = command.json("db", "current")["revision"]
    command("db", "downgrade", "base", "--yes")
    assert command.json("db", "current") == {"revision": None}
    command("db", "upgrade")
    assert command.json("db", "current") == {"revision": revision}


def test_status_of_a_cloud_that_is_not_up(command: Command) -> None:
    result = command.result("--output", "json", "status")
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert (document["up"], document["healthy"], list(document["problems"])) == (False, False, ["api"])


def program(*arguments: str) -> "subprocess.CompletedProcess[str]":
    environment = {k: v for k, v in os.environ.items() if k != "PILEUS_STATE"}
    argv = [sys.executable, "-P", "-m", "controller.cli.main", *arguments]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60, env=environment)
