"""Work for a site while something breaks, and the proof that none of it was lost or done twice."""

import threading
import uuid
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError, HTTPClientError
from sqlalchemy import select

from controller.db.models import Instance
from controller.domain.errors import DatabaseUnavailable
from controller.domain.states import State
from controller.operations.audit.audit import audit
from tests.labs.servers.guarded import wait_until
from tests.labs.site_processes import SiteProcesses

# Instances of a workload, of one of its requests, and clients that ask at once.
COUNT = 100
OF_ONE = 20
CLIENTS = 4
CLIENT_TIMEOUT_S = 15
QUIET_WITHIN_S = 60
# How often an SDK asks until it gives up, where a user lets it.
ATTEMPTS = 5
ENDED = frozenset({State.ACTIVE, State.STOPPED, State.DELETED, State.ERROR})


class Workload:
    """What users do while something breaks. A request without an answer is sent again with its token, as SDKs do."""

    def __init__(self, site: SiteProcesses) -> None:
        self._site = site
        given = site.cloud.environment
        # As impatient as a test must be, and not trying again by itself: what fails is to be seen.
        self.ec2: Any = boto3.client(
            "ec2",
            region_name=given["AWS_DEFAULT_REGION"],
            endpoint_url=given["AWS_ENDPOINT_URL_EC2"],
            aws_access_key_id=given["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=given["AWS_SECRET_ACCESS_KEY"],
            config=Config(
                retries={"total_max_attempts": 1},
                connect_timeout=2,
                read_timeout=CLIENT_TIMEOUT_S,
                max_pool_connections=CLIENTS,
            ),
        )
        self._image = self.ec2.describe_images()["Images"][0]["ImageId"]
        self._clients = ThreadPoolExecutor(CLIENTS, "client")
        self._before = site.guests()
        self.launched: list[str] = []
        self.deleted: list[str] = []
        self.unanswered: list[str] = []
        self.refusals: set[tuple[int, str]] = set()  # HTTP statuses and EC2 codes

    # --- what users do ---

    def launch(self, count: int) -> None:
        """Ask for so many instances, in requests of ``OF_ONE`` from some clients at once."""
        tokens = [uuid.uuid4().hex for _ in range(count // OF_ONE)]
        for ids, token in zip(self._clients.map(self._run, tokens), tokens, strict=True):
            self._note(ids, token)

    def launch_while(self, count: int, blow: Any) -> None:
        """Ask, and have ``blow`` strike while the clients are asking."""
        tokens = [uuid.uuid4().hex for _ in range(count // OF_ONE)]
        answers = [self._clients.submit(partial(self._run, token)) for token in tokens]
        wait_until(lambda: answers[0].done(), deadline_s=CLIENT_TIMEOUT_S * 2, what=self._site.logs)
        blow()
        for answer, token in zip(answers, tokens, strict=True):
            self._note(answer.result(), token)

    def launch_until_refused(self) -> None:
        """Ask for ever more instances until a request is not answered."""
        before = len(self.unanswered)

        def refused() -> bool:
            self.launch(OF_ONE)
            return len(self.unanswered) > before

        wait_until(refused, deadline_s=30, what=lambda: self._story())

    def ask_again(self) -> None:
        """Send what had no answer again, each with its token, a few times if need be."""
        for _ in range(ATTEMPTS):
            asked, self.unanswered = self.unanswered, []
            for token in asked:
                self._note(self._run(token), token)
            if not self.unanswered:
                return
            threading.Event().wait(0.5)
        raise AssertionError(f"no answer to {self.unanswered}\n{self._site.logs()}")

    def delete(self, ids: Sequence[str]) -> None:
        """Terminate."""
        self.ec2.terminate_instances(InstanceIds=list(ids))
        self.deleted += ids

    def _run(self, token: str) -> list[str] | None:
        try:
            made = self.ec2.run_instances(
                ImageId=self._image, InstanceType="p1.tiny", MinCount=OF_ONE, MaxCount=OF_ONE, ClientToken=token
            )
        except ClientError as error:
            self.refusals.add((error.response["ResponseMetadata"]["HTTPStatusCode"], error.response["Error"]["Code"]))
            return None
        except HTTPClientError:
            return None
        return [i["InstanceId"] for i in made["Instances"]]

    def _note(self, ids: list[str] | None, token: str) -> None:
        if ids is None:
            self.unanswered.append(token)
        else:
            self.launched += [i for i in ids if i not in self.launched]

    # --- what is seen ---

    def states(self) -> Counter[State]:
        """How many of this workload's instances are in which state."""
        rows = self._rows()
        return Counter(rows[i][0] for i in self.launched if i in rows)

    def all_states(self) -> Counter[State]:
        """How many of all instances are in which state."""
        return Counter(state for state, _ in self._rows().values())

    def wait_some(self, *states: State) -> None:
        """Wait until at least one of this workload's instances is in one of these states."""
        wait_until(lambda: any(self.states()[s] for s in states), deadline_s=30, what=lambda: self._story())

    def prove(self, *, within_s: float = QUIET_WITHIN_S) -> None:
        """The site comes to rest, and every promise holds.

        Raises: AssertionError: what was lost, done twice or left behind.
        """
        self.ask_again()
        wait_until(lambda: not self._loose_ends(), deadline_s=within_s, what=lambda: self._story())
        rows, guests = self._rows(), self._site.guests()
        # What ran before runs on, booted once and never again.
        gone = set(self.deleted)
        old = {key: guest for key, guest in self._before.items() if key[1] not in gone}
        assert {key: guests.get(key) for key in old} == old
        # One machine for each row, where the row says, booted once: none twice, none too many.
        assert set(guests) == {(host, i) for i, (state, host) in rows.items() if state is not State.DELETED}
        assert Counter(guests.values()) == {("RUNNING", 1): len(guests)} or not guests
        assert self._site.dead_letters() == []

    def clear(self) -> None:
        """Terminate what the workload launched, and wait until it is gone."""
        if left := [i for i in self.launched if i not in self.deleted]:
            self.delete(left)
        wait_until(lambda: not self._loose_ends(), deadline_s=QUIET_WITHIN_S, what=lambda: self._story())

    def close(self) -> None:
        """End the clients."""
        self._clients.shutdown(cancel_futures=True)
        self.ec2.close()

    def _loose_ends(self) -> list[str]:
        """What is not as it was asked for yet."""
        try:
            return self._unlike_wishes(self._rows()) or [str(b) for b in self._site.rows.read(audit)]
        except DatabaseUnavailable as error:
            return [str(error)]  # our own connections, too, have to find out that the database was away

    def _unlike_wishes(self, rows: dict[str, tuple[State, str]]) -> list[str]:
        gone = set(self.deleted)
        wanted = {i: State.DELETED if i in gone else State.ACTIVE for i in self.launched}
        ends = [
            f"{i} is {rows[i][0] if i in rows else 'lost'}" for i, state in wanted.items() if _state(rows, i) != state
        ]
        ends += [f"{i} is {state}" for i, (state, _) in rows.items() if i not in wanted and state not in ENDED]
        ends += [
            f"{i}, which ran before, is {_state(rows, i)}"
            for _, i in self._before
            if i not in gone and _state(rows, i) != State.ACTIVE
        ]
        return ends

    def _rows(self) -> dict[str, tuple[State, str]]:
        query = select(Instance.id, Instance.state, Instance.host_id)
        found = self._site.rows.read(lambda tx: tx.session.execute(query).all())
        return {row.id: (State(row.state), row.host_id or "") for row in found}

    def _story(self) -> str:
        return "\n".join([*self._loose_ends()[:10], str(self.states()), self._site.logs()])


def _state(rows: dict[str, tuple[State, str]], instance_id: str) -> State | None:
    found = rows.get(instance_id)
    return found[0] if found else None
