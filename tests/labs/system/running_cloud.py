"""A cloud of a test as its users have it: `pileus`, the stock `aws` command, boto3 and SSH."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from controller.domain.names import bridge_prefix, interface_prefix, nft_table
from tests.labs.servers.guarded import wait_until
from tests.labs.servers.server import free_ports

CHECKOUT = Path(__file__).parents[3]
LOG_TAIL = 5000


def clean_environment() -> dict[str, str]:
    """The environment without what the developer's own clouds and virtual environments left in it."""
    foreign = re.compile(r"(AWS|EC2|ONE|PILEUS)_|PYTHON(PATH|HOME)$|VIRTUAL_ENV$")
    return {name: value for name, value in os.environ.items() if not foreign.match(name)}


class RunningCloud:
    """One cloud below ``state``; ``programs`` is the folder with its `pileus` and `aws`."""

    def __init__(self, state: Path, programs: Path, *, prefix: Sequence[str] = ()) -> None:
        self.state = state
        self.programs = programs
        self._prefix = prefix

    @classmethod
    def quickstart(cls, state: Path, *options: str, prefix: Sequence[str] = (), checkout: Path = CHECKOUT) -> str:
        """Run bin/quickstart; what it says. ``prefix`` is a program that runs it as another user."""
        return run([*prefix, str(checkout / "bin/quickstart"), "--state", str(state), *options], timeout_s=600)

    @classmethod
    def set_up(cls, state: Path, programs: Path) -> "RunningCloud":
        """A new cloud of this machine, without quickstart."""
        cloud = cls(state, programs)
        cloud.pileus("init", "--port", str(free_ports(1)[0]))
        cloud.pileus("up", "--hosts", "1", timeout_s=200)
        return cloud

    @cached_property
    def environment(self) -> dict[str, str]:
        """What a shell has after sourcing cloudrc."""
        text = run(["bash", "-c", '. "$1" && exec env -0', "bash", str(self.state / "cloudrc")])
        return dict(line.split("=", 1) for line in text.split("\0") if line)

    @cached_property
    def cloud_id(self) -> str:
        """The mark of all that this cloud owns on the machine."""
        found = re.search(r"^cloud_id = ([0-9a-f]{8})$", (self.state / "pileus.conf").read_text(), re.MULTILINE)
        assert found, "no cloud_id in pileus.conf"
        return found[1]

    @cached_property
    def ec2(self) -> Any:
        """boto3's own client; errors are seen at once, not tried again."""
        given = self.environment
        return boto3.client(
            "ec2",
            region_name=given["AWS_DEFAULT_REGION"],
            endpoint_url=given["AWS_ENDPOINT_URL_EC2"],
            aws_access_key_id=given["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=given["AWS_SECRET_ACCESS_KEY"],
            config=Config(retries={"total_max_attempts": 1}),
        )

    def pileus(self, *arguments: str, timeout_s: float = 120) -> str:
        """The operator's command; its standard output."""
        return run(self._pileus(*arguments), timeout_s=timeout_s)

    def pileus_json(self, *arguments: str) -> Any:
        """What a listing says with --output json."""
        return json.loads(run(self._pileus("--output", "json", *arguments)))

    def pileus_fails(self, *arguments: str) -> str:
        """The operator's command, which must refuse with exit status 1; its standard error."""
        done = _finish(self._pileus(*arguments), 60)
        assert done.returncode == 1, f"status {done.returncode}: {done.stdout}{done.stderr}"
        return done.stderr

    def aws(self, *arguments: str) -> Any:
        """The stock command, of the group ec2; its JSON."""
        text = run([str(self.programs / "aws"), "ec2", *arguments, "--output", "json"], environment=self.environment)
        return json.loads(text) if text.strip() else None

    def machine(self, instance_id: str) -> Any:
        """An instance as DescribeInstances has it."""
        return self.ec2.describe_instances(InstanceIds=[instance_id])["Reservations"][0]["Instances"][0]

    def wait_state(self, state: str, *ids: str, deadline_s: float = 240) -> None:
        """Wait until every one of these instances is in this state."""

        def there() -> bool:
            pages = self.ec2.get_paginator("describe_instances").paginate(InstanceIds=list(ids))
            found = [i["State"]["Name"] for page in pages for r in page["Reservations"] for i in r["Instances"]]
            return len(found) == len(ids) and set(found) == {state}

        wait_until(there, deadline_s=deadline_s, what=lambda: f"not all are {state}\n{self.scenarios(ids)}")

    def scenarios(self, ids: Sequence[str]) -> str:
        """What happened to some instances, and the end of the cloud's log: for a test that fails."""
        parts = [_finish(self._pileus("instance", "explain", i), 60).stdout for i in ids[:3]]
        return "\n".join([*parts, self.log_tail()])

    def log_tail(self) -> str:
        with contextlib.suppress(OSError):
            return (self.state / "log/pileus.log").read_text(errors="replace")[-LOG_TAIL:]
        return "(no log)"

    def traces(self) -> dict[str, object]:
        """All that there is of this cloud on the machine outside its state folder; empty when there is nothing."""
        prefix, state = interface_prefix(self.cloud_id), f"{self.state}/"
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        tables = run(["nft", "list", "tables"]) if os.geteuid() == 0 else ""
        found: dict[str, object] = {
            "interfaces": [p.name for p in Path("/sys/class/net").iterdir() if p.name.startswith(prefix)],
            "nft": [line for line in tables.splitlines() if nft_table(self.cloud_id) in line],
            "processes": processes_with(state, str(self.state)),
            "mounts": [line for line in mounts if state in line],
            "run": [str(p) for p in Path("/run").glob(f"pileus-{self.cloud_id}*")],
        }
        return {name: what for name, what in found.items() if what}

    def bridges(self) -> list[str]:
        prefix = bridge_prefix(self.cloud_id)
        return [p.name for p in Path("/sys/class/net").iterdir() if p.name.startswith(prefix)]

    def sweep_away(self) -> None:
        """End what a failed test left, by the cloud's own command and, should that fail, by hand."""
        if not (self.state / "pileus.conf").exists():
            return
        _ = self.cloud_id
        _finish(self._pileus("down", "--destroy"), 200)
        for pid in processes_with(f"{self.state}/", str(self.state)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for name in self.traces().get("interfaces", []):  # type: ignore[attr-defined]
            _finish(["ip", "link", "delete", name], 30)
        if "nft" in self.traces():
            _finish(["nft", "delete", "table", "inet", nft_table(self.cloud_id)], 30)

    def _pileus(self, *arguments: str) -> list[str]:
        return [*self._prefix, str(self.programs / "pileus"), "--state", str(self.state), *arguments]


class Shell:
    """SSH into guests with one key."""

    def __init__(self, key: Path, *, user: str = "root") -> None:
        self._user = user
        options = ["IdentitiesOnly=yes", "BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null"]
        options += ["ConnectTimeout=10", "ServerAliveInterval=10", "LogLevel=ERROR"]
        self._argv = ["ssh", "-F", "/dev/null", "-i", str(key), *(word for o in options for word in ("-o", o))]

    def wait(self, address: str, *, deadline_s: float = 240, what: Callable[[], str] = lambda: "") -> None:
        """Wait until one can log in."""
        last = ""

        def there() -> bool:
            nonlocal last
            done = _finish([*self._argv, f"{self._user}@{address}", "true"], 60)
            last = done.stderr
            return done.returncode == 0

        wait_until(there, deadline_s=deadline_s, what=lambda: f"no SSH to {address}: {last}\n{what()}")

    def run(self, address: str, command: str, *, stdin: str = "", timeout_s: float = 60) -> str:
        """Standard output of a command in a guest."""
        return run([*self._argv, f"{self._user}@{address}", command], stdin=stdin, timeout_s=timeout_s)

    def succeeds(self, address: str, command: str) -> bool:
        return _finish([*self._argv, f"{self._user}@{address}", command], 60).returncode == 0


def run(
    argv: Sequence[str], *, timeout_s: float = 120, stdin: str = "", environment: Mapping[str, str] | None = None
) -> str:
    """Run a program to its end; its standard output. Raises: AssertionError: it failed; with what it said."""
    done = _finish(argv, timeout_s, stdin, environment)
    words = " ".join(argv)
    assert done.returncode == 0, (
        f"{words}: status {done.returncode}\n{done.stdout[-LOG_TAIL:]}{done.stderr[-LOG_TAIL:]}"
    )
    return done.stdout


def _finish(
    argv: Sequence[str], timeout_s: float, stdin: str = "", environment: Mapping[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    given = clean_environment() if environment is None else environment
    return subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=timeout_s, env=given, cwd="/")


def pings(address: str) -> bool:
    return _finish(["ping", "-c", "1", "-W", "1", "-n", address], 10).returncode == 0


def processes_with(*words: str) -> list[int]:
    """Processes, but for this one, that have one of these in their arguments (a whole one, or its beginning)."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            line = (folder / "cmdline").read_bytes().decode(errors="replace")
            if int(folder.name) != os.getpid() and any(_has(line, word) for word in words):
                found.append(int(folder.name))
    return found


def leaders(pids: Iterable[int]) -> list[int]:
    """These without their children: one that is about to become another program still looks like its parent."""
    found = set(pids)
    return sorted(p for p in found if _parent(p) not in found)


def _parent(pid: int) -> int | None:
    """See proc_pid_stat(5); None when the process is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return int(stat.rpartition(")")[2].split()[1])


def _has(line: str, word: str) -> bool:
    return word in line if word.endswith("/") else word in line.split("\0")


def answers_at(address: str, port: int) -> bool:
    """Whether this machine itself can connect there."""
    try:
        socket.create_connection((address, port), 2).close()
    except OSError:
        return False
    return True


def elapsed(call: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    start = time.monotonic()
    call()
    return time.monotonic() - start
