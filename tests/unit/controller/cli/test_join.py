"""`pileus host token` and `pileus join`, against an API that a test scripts."""

import json
import stat
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from controller.cli.join_request import checked_url, is_in_the_clear
from controller.conf import load_settings
from controller.domain.errors import InvalidParameter
from tests.labs.command import Command

SECRET = "hunter$2"  # oslo.config would replace $2
ANSWER: dict[str, Any] = {
    "host": "h-0001",
    "renewed": False,
    "cloud_id": "c10dc10d",
    "bus_url": f"amqp://agent:{SECRET}@127.0.0.1:1//",
    "public_url": "http://cloud:8773",
    "zone": "z7",
    "network": {"trunk": "eth9", "physical_network": "site", "surprise": "ignored"},
}


class Api:
    """Answers every request alike, and remembers them."""

    def __init__(self) -> None:
        self.status, self.body, self.asked = 201, json.dumps(ANSWER), list[dict[str, Any]]()
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                api.asked.append({"path": self.path, **json.loads(self.rfile.read(length))})
                self.send_response(api.status)
                self.end_headers()
                self.wfile.write(api.body.encode())

            def log_message(self, *_: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()


@pytest.fixture
def api() -> Iterator[Api]:
    made = Api()
    yield made
    made.server.shutdown()
    made.server.server_close()


def join(nowhere: Command, api: Api, *options: str) -> Any:
    return nowhere.result("join", api.url, "the-token", "--name", "h", "--driver", "simulated", *options)


def test_tokens_are_made_listed_and_revoked(command: Command) -> None:
    assert "no host can join" in command.result("host", "token", "create").stderr
    command("host", "token", "revoke", command.json("host", "token", "list")[0]["id"])
    made = command.json("host", "token", "create", "--name-pattern", "rack1-*", "--uses", "3", "--expires", "7d")
    assert (made["name_pattern"], made["uses_left"], len(made["token"])) == ("rack1-*", 3, 40)
    (listed,) = command.json("host", "token", "list")
    assert made["token"] not in str(listed)
    command("host", "token", "revoke", made["id"])
    assert command.json("host", "token", "list") == []
    for wrong in ("", "24", "h", "-1h", "1y", "1h1h"):
        assert command.result("host", "token", "create", "--expires", wrong).exit_code == 2
    assert command.result("host", "token", "create", "--uses", "0").exit_code == 2


def test_a_host_joins_and_its_configuration_is_private(nowhere: Command, api: Api) -> None:
    result = join(nowhere, api, "--label", "ssd", "--label", "gpu")
    assert result.exit_code == 0, result.output
    (asked,) = api.asked
    assert (asked["path"], asked["token"], asked["name"], asked["zone"]) == (
        "/v1/hosts/join",
        "the-token",
        "h-0001",
        "",
    )
    assert (asked["labels"], asked["vcpus"], asked["hypervisor"]) == (["ssd", "gpu"], 32, "simulated")
    file = nowhere.state / "pileus.conf"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    settings = load_settings(file)
    assert settings.bus.url == ANSWER["bus_url"]
    assert (settings.general.cloud_id, settings.general.host, settings.public_url) == (
        "c10dc10d",
        "h",
        "http://cloud:8773",
    )
    assert (settings.compute.zone, settings.compute.labels, settings.compute.driver) == (
        "z7",
        ("ssd", "gpu"),
        "simulated",
    )
    assert (settings.network.trunk, settings.network.physical_network) == ("eth9", "site")
    assert settings.database.url == ""
    assert "serve compute" in result.stdout
    assert "the bus cannot be reached" in result.stderr
    assert SECRET not in result.output
    assert not (nowhere.state / "secret.key").exists()


def test_joining_again_keeps_what_was_said_before(nowhere: Command, api: Api) -> None:
    join(nowhere, api, "--label", "ssd")
    file = nowhere.state / "pileus.conf"
    file.write_text(file.read_text() + "\n[images]\nmax_bytes = 77777\n")
    assert nowhere.result("join", api.url, "the-token").exit_code == 0
    assert (api.asked[1]["labels"], api.asked[1]["name"], api.asked[1]["zone"]) == (["ssd"], "h-0001", "z7")
    assert load_settings(file).images.max_bytes == 77777
    api.body = json.dumps({**ANSWER, "cloud_id": "0badc10d"})
    assert "is of cloud c10dc10d" in str(join(nowhere, api).exception)


def test_every_simulated_host_joins(nowhere: Command, api: Api) -> None:
    assert join(nowhere, api, "--simulated", "3").exit_code == 0
    assert [a["name"] for a in api.asked] == ["h-0001", "h-0002", "h-0003"]
    assert load_settings(nowhere.state / "pileus.conf").compute.simulated_hosts == 3


@pytest.mark.parametrize("kind", [("--simulated", "3"), ("--driver", "simulated")])
def test_a_probe_that_would_never_run_is_refused(nowhere: Command, api: Api, kind: tuple[str, str]) -> None:
    result = nowhere.result("join", api.url, "t", *kind, "--mac-probe", "/opt/site/macs")
    assert (result.exit_code, api.asked) == (2, [])
    assert "simulated_macs_file" in result.stderr


def test_the_token_may_come_from_elsewhere(nowhere: Command, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PILEUS_JOIN_URL", api.url)
    monkeypatch.setenv("PILEUS_JOIN_TOKEN", "of-the-environment")
    assert nowhere.result("join", "--driver", "simulated", "--name", "h").exit_code == 0
    assert api.asked[0]["token"] == "of-the-environment"


def test_a_refusal_is_told_and_nothing_is_written(nowhere: Command, api: Api) -> None:
    api.status, api.body = 401, json.dumps({"detail": "the join token\nis used up"})
    result = join(nowhere, api)
    assert "refuses: the join token is used up" in str(result.exception)
    assert not (nowhere.state / "pileus.conf").exists()


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, "<html>"),
        (200, "[]"),
        (200, "{}"),
        (200, json.dumps({**ANSWER, "bus_url": 7})),
        (200, json.dumps({**ANSWER, "network": []})),
        (500, "oops"),
        (404, "{}"),
        (302, ""),
    ],
)
def test_an_answer_of_another_server(nowhere: Command, api: Api, status: int, body: str) -> None:
    api.status, api.body = status, body
    assert "does not answer as the API" in str(join(nowhere, api).exception)
    assert not (nowhere.state / "pileus.conf").exists()


@pytest.mark.parametrize("change", [{"cloud_id": "../../etc"}, {"bus_url": "amqp://x\n[database]\nurl=y"}])
def test_a_hostile_answer_writes_nothing(nowhere: Command, api: Api, change: dict[str, str]) -> None:
    api.body = json.dumps({**ANSWER, **change})
    assert join(nowhere, api).exception is not None
    assert not (nowhere.state / "pileus.conf").exists()


def test_no_answer(nowhere: Command, refused: Callable[..., str]) -> None:
    said = refused(nowhere, "join", "http://127.0.0.1:1", "t", "--driver", "simulated", "--name", "h")
    assert "refused" in said


@pytest.mark.parametrize(
    "url",
    [
        "",
        "cloud",
        "ftp://x",
        "file:///etc/passwd",
        "http://",
        "http://u:p@x",
        "http://x:99999",
        "http://x?a=b",
        "http://[x",
    ],
)
def test_a_url_that_is_none(url: str) -> None:
    with pytest.raises(InvalidParameter, match="URL"):
        checked_url(url)


def test_what_others_can_read_is_said() -> None:
    assert is_in_the_clear("http://cloud:8773")
    assert not is_in_the_clear("https://cloud:8773")
    assert not is_in_the_clear("http://127.0.0.1:8773")


def test_a_bad_name_is_refused_here(nowhere: Command, api: Api) -> None:
    result = nowhere.result("join", api.url, "t", "--driver", "simulated", "--name", "../x")
    assert isinstance(result.exception, InvalidParameter)
    assert api.asked == []


def test_a_clouds_own_folder_is_refused(command: Command, api: Api) -> None:
    assert "holds a cloud of its own" in str(join(command, api).exception)
    assert api.asked == []


def test_a_state_folder_of_its_own(tmp_path: Path, nowhere: Command, api: Api) -> None:
    folder = tmp_path / "agent"
    assert join(nowhere, api, "--state", str(folder)).exit_code == 0
    assert load_settings(folder / "pileus.conf").general.state_dir == str(folder)
    assert join(nowhere, api, "--simulated", "0").exit_code == 2


def test_a_hosts_drift_is_accepted(command: Command, refused: Callable[..., str]) -> None:
    assert "does not exist" in refused(command, "host", "accept", "nobody")
