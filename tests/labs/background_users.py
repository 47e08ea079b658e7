"""Users who launch, stop, start, reboot and terminate without a pause, and remember what they asked for."""

import random
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any, Self

from botocore.exceptions import BotoCoreError, ClientError

from tests.labs.servers.guarded import wait_until
from tests.labs.system.running_cloud import RunningCloud

_ACTIONS = {"stop": ("running", "stopped"), "start": ("stopped", "running"), "reboot": ("running", "running")}
# What another attempt answers: the door is being exchanged, or its database or bus was away for a moment.
_PASSING = ("Unavailable", "InternalError", "ServiceUnavailable", "InsufficientInstanceCapacity")


class RestlessUsers:
    """One thread of requests, one after the other; a context manager that lets the last one end.

    ``expected`` is what each instance is to become, by what was accepted; ``disturbed`` are those that were stopped or
    rebooted, so that they may have been booted more than once. A request that fails while its door is exchanged is
    sent again, a launch with the same token.
    """

    def __init__(self, cloud: RunningCloud, *, launch: int, most: int, seed: int) -> None:
        self.expected: dict[str, str] = {}
        self.disturbed: set[str] = set()
        self.requests = 0
        self.failure: BaseException | None = None
        self._cloud = cloud
        self._launch = launch
        self._most = most
        self._random = random.Random(seed)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="users", daemon=True)

    def check(self) -> None:
        """Raise what ended the users."""
        if self.failure is not None:
            raise self.failure

    def wait_for_more(self, count: int = 12) -> None:
        """Wait until so many more requests were accepted: two rounds or so."""
        enough = self.requests + count

        def there() -> bool:
            self.check()
            return self.requests >= enough

        wait_until(there, deadline_s=240, what=lambda: f"{self.requests} requests, {enough} are waited for")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=120)

    def _run(self) -> None:
        try:
            image = self._again(lambda ec2: ec2.describe_images())["Images"][0]["ImageId"]
            while not self._stop.is_set():
                self._turn(image)
        except _Ended:
            return
        except BaseException as error:
            self.failure = error

    def _turn(self, image: str) -> None:
        alive = [i for i, state in self.expected.items() if state != "terminated"]
        if len(alive) < self._most:
            token = str(uuid.uuid4())
            made = self._again(
                lambda ec2: ec2.run_instances(
                    ImageId=image,
                    InstanceType="p1.tiny",
                    MinCount=self._launch,
                    MaxCount=self._launch,
                    ClientToken=token,
                )
            )
            self.expected |= {i["InstanceId"]: "running" for i in made["Instances"]}
        shown = self._shown()
        settled = [i for i in alive if shown.get(i) == self.expected[i]]
        self._random.shuffle(settled)
        for action, (before, after) in _ACTIONS.items():
            ids = [i for i in settled if shown[i] == before][:2]
            settled = [i for i in settled if i not in ids]
            if ids and self._act(action, ids):
                self.disturbed |= set(ids)
                self.expected |= dict.fromkeys(ids, after)
        ids = settled[: self._launch if len(alive) >= self._most else 1]
        if ids and self._act("terminate", ids):
            self.expected |= dict.fromkeys(ids, "terminated")

    def _act(self, action: str, ids: list[str]) -> bool:
        """Whether it was accepted; its first attempt may have been, whose answer was lost."""
        try:
            self._again(lambda ec2: getattr(ec2, f"{action}_instances")(InstanceIds=ids))
        except ClientError as error:
            if error.response["Error"]["Code"] != "IncorrectInstanceState":
                raise
            self._forget(ids)
            return False
        except _Ended:
            self._forget(ids)
            raise
        return True

    def _forget(self, ids: list[str]) -> None:
        """A lost answer leaves open what was accepted: it is open what these are to become."""
        self.disturbed |= set(ids)
        for i in ids:
            self.expected.pop(i)

    def _shown(self) -> dict[str, str]:
        pages = self._again(lambda ec2: list(ec2.get_paginator("describe_instances").paginate()))
        return {i["InstanceId"]: i["State"]["Name"] for p in pages for r in p["Reservations"] for i in r["Instances"]}

    def _again(self, request: Callable[[Any], Any]) -> Any:
        end = time.monotonic() + 240
        while True:
            try:
                answer = request(self._cloud.ec2)
            except BotoCoreError as error:
                passing: Exception = error
            except ClientError as error:
                if not any(word in error.response["Error"]["Code"] for word in _PASSING):
                    raise
                passing = error
            else:
                self.requests += 1
                return answer
            if time.monotonic() > end:
                raise passing
            if self._stop.wait(0.2):
                raise _Ended from passing


class _Ended(Exception):
    """The users were told to stop while a request failed: whether it was accepted is open."""
