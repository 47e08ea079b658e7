"""Who asked: in the story of an instance, and in the log."""

from typing import Any

import pytest
from botocore.exceptions import ClientError
from structlog.testing import capture_logs

from controller.domain.states import Event
from controller.operations.instances import history
from tests.labs.api_site import Site, ids_of, run


def test_history_names_the_user(site: Site, ec2: Any) -> None:
    (instance_id,) = ids_of(run(site, ec2))
    ec2.terminate_instances(InstanceIds=[instance_id])
    steps = site.cloud.read(lambda tx: history.explain(tx, instance_id).events)
    assert [s.detail for s in steps if s.event == Event.DELETE] == ["asked for by alice"]


def test_log_names_user_and_client(site: Site, ec2: Any) -> None:
    with capture_logs() as lines:
        run(site, ec2)
        with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
            run(site, site.client(aws_secret_access_key="wrong"))
    done, refused = (line for line in lines if line["event"] == "request")
    assert (done["user"], done["client"], done["status"]) == ("alice", "127.0.0.1", 200)
    assert (refused["user"], refused["client"], refused["code"]) == ("", "127.0.0.1", "auth.signature")
