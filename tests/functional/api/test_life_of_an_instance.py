"""Stories of instances, told by boto3 unchanged."""

import re
from datetime import timedelta
from typing import Any

import pytest

from controller.domain.messages import GuestReport, GuestsChanged
from controller.domain.states import DEADLINE_S, Event, State
from controller.operations.instances import sweeps
from controller.operations.instances.reports import apply_reports
from controller.operations.instances.views import get_instance
from tests.labs.api_site import TYPE, Site, ids_of, run

SOON = {"Delay": 0.1, "MaxAttempts": 100}


def states(client: Any, *ids: str) -> list[str]:
    answer = client.describe_instances(InstanceIds=list(ids))
    return [i["State"]["Name"] for r in answer["Reservations"] for i in r["Instances"]]


def test_from_request_to_terminated(site_on_each_engine: Site) -> None:
    site = site_on_each_engine
    ec2 = site.client()
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": "web & db"}]}]
    launched = run(site, ec2, 3, TagSpecifications=tags)
    ids = ids_of(launched)
    assert [i["AmiLaunchIndex"] for i in launched["Instances"]] == [0, 1, 2]
    assert {i["State"]["Name"] for i in launched["Instances"]} == {"pending"}
    assert launched["OwnerId"] == site.project_id
    with site.working():
        ec2.get_waiter("instance_exists").wait(InstanceIds=ids, WaiterConfig=SOON)
        ec2.get_waiter("instance_running").wait(InstanceIds=ids, WaiterConfig=SOON)
        ec2.get_waiter("instance_status_ok").wait(InstanceIds=ids, WaiterConfig=SOON)
        stopped = ec2.stop_instances(InstanceIds=ids[:2])["StoppingInstances"]
        assert [(s["PreviousState"]["Name"], s["CurrentState"]["Code"]) for s in stopped] == [("running", 64)] * 2
        ec2.get_waiter("instance_stopped").wait(InstanceIds=ids[:2], WaiterConfig=SOON)
        ec2.start_instances(InstanceIds=ids[:1])
        ec2.get_waiter("instance_running").wait(InstanceIds=ids[:1], WaiterConfig=SOON)
        ec2.reboot_instances(InstanceIds=ids[:1])
        ec2.get_waiter("instance_running").wait(InstanceIds=ids[:1], WaiterConfig=SOON)
        assert states(ec2, *ids) == ["running", "stopped", "running"]
        ec2.terminate_instances(InstanceIds=ids)
        ec2.get_waiter("instance_terminated").wait(InstanceIds=ids, WaiterConfig=SOON)
    assert states(ec2, *ids) == ["terminated"] * 3


def test_description_of_an_instance(site: Site, ec2: Any) -> None:
    (instance_id,) = ids_of(run(site, ec2, ClientToken="t-1"))
    site.work()
    (reservation,) = ec2.describe_instances()["Reservations"]
    (shown,) = reservation["Instances"]
    assert reservation["OwnerId"] == site.project_id
    assert reservation["Groups"] == []
    dashed = shown["PrivateIpAddress"].replace(".", "-")
    assert shown["PrivateDnsName"] == f"ip-{dashed}.pileus.internal"
    assert shown["Placement"] == {"AvailabilityZone": "pileus-1", "GroupName": "", "Tenancy": "default"}
    assert shown["State"] == {"Code": 16, "Name": "running"}
    expected = {
        "InstanceId": instance_id, "ImageId": site.image, "InstanceType": TYPE, "ClientToken": "t-1",
        "PublicDnsName": "", "Architecture": "x86_64", "Hypervisor": "kvm", "VirtualizationType": "hvm",
        "RootDeviceName": "/dev/vda", "SecurityGroups": [], "NetworkInterfaces": [], "BlockDeviceMappings": [],
        "Monitoring": {"State": "disabled"}, "Tags": [],
    }  # fmt: skip
    assert {key: shown.get(key) for key in expected} == expected
    assert shown["LaunchTime"].tzinfo is not None
    assert "StateReason" not in shown


def test_a_failure_says_why(site: Site, ec2: Any) -> None:
    (instance_id,) = ids_of(run(site, ec2))
    site.happen(Event.FAILED, instance_id, detail="no host has room", reason_code="no_capacity")
    (shown,) = ec2.describe_instances()["Reservations"][0]["Instances"]
    assert shown["State"]["Name"] == "terminated"
    assert shown["StateReason"] == {
        "Code": "Server.InsufficientInstanceCapacity",
        "Message": "Server.InsufficientInstanceCapacity: no host has room",
    }


def test_lost_contact_is_running_and_impaired(site: Site, ec2: Any) -> None:
    (instance_id,) = ids_of(run(site, ec2))
    site.work()
    site.happen(Event.HOST_LOST, instance_id)
    (status,) = ec2.describe_instance_status(InstanceIds=[instance_id])["InstanceStatuses"]
    assert status["InstanceState"]["Name"] == "running"
    assert status["SystemStatus"]["Status"] == "impaired"
    assert status["SystemStatus"]["Details"][0]["ImpairedSince"]
    impaired = [{"Name": "system-status.status", "Values": ["impaired"]}]
    assert ec2.describe_instance_status(Filters=impaired)["InstanceStatuses"]


def test_status_is_of_running_instances_unless_all_are_asked_for(site: Site, ec2: Any) -> None:
    (instance_id,) = ids_of(run(site, ec2))
    assert ec2.describe_instance_status()["InstanceStatuses"] == []
    (status,) = ec2.describe_instance_status(IncludeAllInstances=True)["InstanceStatuses"]
    assert (status["InstanceId"], status["InstanceStatus"]["Status"]) == (instance_id, "not-applicable")


def test_terminated_instances_are_shown_for_a_while(site: Site, ec2: Any) -> None:
    (instance_id,) = ids_of(run(site, ec2))
    ec2.terminate_instances(InstanceIds=[instance_id])
    assert states(ec2, instance_id) == ["terminated"]
    again = ec2.terminate_instances(InstanceIds=[instance_id])["TerminatingInstances"]
    assert again[0]["PreviousState"]["Name"] == again[0]["CurrentState"]["Name"] == "terminated"


def test_user_data_and_attributes(site: Site, ec2: Any) -> None:
    (instance_id,) = ids_of(run(site, ec2, UserData="#!/bin/sh\necho ü\n"))

    def attribute(name: str) -> Any:
        return ec2.describe_instance_attribute(InstanceId=instance_id, Attribute=name)

    assert attribute("userData")["UserData"]["Value"] == "IyEvYmluL3NoCmVjaG8gw7wK"
    assert attribute("instanceType")["InstanceType"] == {"Value": TYPE}
    assert attribute("disableApiTermination")["DisableApiTermination"] == {"Value": False}
    assert attribute("instanceInitiatedShutdownBehavior")["InstanceInitiatedShutdownBehavior"] == {"Value": "stop"}
    ec2.modify_instance_attribute(InstanceId=instance_id, DisableApiTermination={"Value": False})
    ec2.modify_instance_attribute(InstanceId=instance_id, Attribute="disableApiTermination", Value="false")
    for wrong, code in (
        ({"Attribute": "disableApiTermination", "Value": "true"}, "UnsupportedOperation"),
        ({"Attribute": "colour", "Value": "red"}, "InvalidParameterValue"),
        ({}, "InvalidParameterCombination"),
    ):
        with pytest.raises(ec2.exceptions.ClientError, match=code):
            ec2.modify_instance_attribute(InstanceId=instance_id, **wrong)


def go_off(site: Site, instance_id: str, cause: str) -> None:
    """What its agent says of a guest that is off without a request."""
    row = site.cloud.read(lambda tx: get_instance(tx, None, instance_id))
    report = GuestReport(instance_id, row.generation, Event.SHUT_OFF, f"off ({cause})", cause)
    site.cloud.write(lambda tx: apply_reports(tx, [GuestsChanged(row.host_id or "", (report,))]))


def shown(ec2: Any, instance_id: str) -> tuple[str, str]:
    """The state of an instance, and the code of its reason."""
    (instance,) = ec2.describe_instances(InstanceIds=[instance_id])["Reservations"][0]["Instances"]
    return instance["State"]["Name"], instance.get("StateReason", {}).get("Code", "")


def why(ec2: Any, instance_id: str) -> str:
    """What DescribeInstances says of the instance's last transition."""
    (instance,) = ec2.describe_instances(InstanceIds=[instance_id])["Reservations"][0]["Instances"]
    found: str = instance["StateTransitionReason"]
    return found


def ids_in(answer: Any) -> set[str]:
    """The instances of a list."""
    return {i["InstanceId"] for r in answer["Reservations"] for i in r["Instances"]}


def test_a_guest_that_powers_itself_off_says_so(site_on_each_engine: Site) -> None:
    site = site_on_each_engine
    ec2 = site.client()
    stops, crashes, ends, late = ids_of(run(site, ec2, 2)) + ids_of(
        run(site, ec2, 2, InstanceInitiatedShutdownBehavior="terminate")
    )
    site.work()
    for instance_id, cause in ((stops, "shutdown"), (crashes, "crashed"), (ends, "shutdown"), (late, "")):
        go_off(site, instance_id, cause)
    assert shown(ec2, stops) == ("stopped", "Client.InstanceInitiatedShutdown")
    assert shown(ec2, crashes) == ("stopped", "Server.InternalError")
    assert shown(ec2, ends) == ("shutting-down", "Client.InstanceInitiatedShutdown")
    assert shown(ec2, late) == ("stopped", "Server.InternalError")
    by_reason = [{"Name": "state-reason-code", "Values": ["Client.InstanceInitiatedShutdown"]}]
    assert ids_in(ec2.describe_instances(Filters=by_reason)) == {stops, ends}
    site.work()
    assert shown(ec2, ends) == ("terminated", "Client.InstanceInitiatedShutdown")
    ec2.start_instances(InstanceIds=[stops])
    site.work()
    assert shown(ec2, stops) == ("running", "")


def test_state_reason_of_a_user_request(site: Site, ec2: Any) -> None:
    stopped, crashed, off = ids_of(run(site, ec2, 3))
    site.work()
    ec2.stop_instances(InstanceIds=[stopped])
    assert shown(ec2, stopped) == ("stopping", "Client.UserInitiatedShutdown")
    site.work()
    assert shown(ec2, stopped) == ("stopped", "Client.UserInitiatedShutdown")
    assert re.fullmatch(r"User initiated \(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d GMT\)", why(ec2, stopped))
    by_reason = [{"Name": "reason", "Values": ["User initiated (*)"]}]
    assert ids_in(ec2.describe_instances(Filters=by_reason)) == {stopped}
    go_off(site, crashed, "crashed")
    go_off(site, off, "shutdown")
    assert (why(ec2, crashed), why(ec2, off)) == ("Server.InternalError: off (crashed)", "")
    # How they went off is over: their owner terminates them now.
    ec2.terminate_instances(InstanceIds=[crashed, off])
    assert shown(ec2, crashed) == shown(ec2, off) == ("shutting-down", "Client.UserInitiatedShutdown")
    site.work()
    assert shown(ec2, crashed) == shown(ec2, off) == ("terminated", "Client.UserInitiatedShutdown")
    ec2.start_instances(InstanceIds=[stopped])
    site.work()
    assert (shown(ec2, stopped), why(ec2, stopped)) == (("running", ""), "")


def test_a_start_that_fails_says_why(site: Site, ec2: Any) -> None:
    (instance_id,) = ids_of(run(site, ec2))
    site.work()
    ec2.stop_instances(InstanceIds=[instance_id])
    site.work()
    ec2.start_instances(InstanceIds=[instance_id])
    row = site.cloud.read(lambda tx: get_instance(tx, None, instance_id))
    report = GuestReport(instance_id, row.generation, Event.FAILED, "its disk is gone")
    site.cloud.write(lambda tx: apply_reports(tx, [GuestsChanged(row.host_id or "", (report,))]))
    assert shown(ec2, instance_id) == ("stopped", "Server.InternalError")
    assert why(ec2, instance_id) == "Server.InternalError: its disk is gone"


def test_the_shutdown_behavior_is_shown_and_changed(site: Site, ec2: Any) -> None:
    name = "instanceInitiatedShutdownBehavior"
    first, second = ids_of(run(site, ec2)) + ids_of(run(site, ec2, InstanceInitiatedShutdownBehavior="terminate"))

    def behavior(instance_id: str) -> Any:
        answer = ec2.describe_instance_attribute(InstanceId=instance_id, Attribute=name)
        return answer["InstanceInitiatedShutdownBehavior"]["Value"]

    assert (behavior(first), behavior(second)) == ("stop", "terminate")
    ec2.modify_instance_attribute(InstanceId=first, InstanceInitiatedShutdownBehavior={"Value": "terminate"})
    ec2.modify_instance_attribute(InstanceId=second, Attribute=name, Value="stop")
    assert (behavior(first), behavior(second)) == ("terminate", "stop")
    site.work()
    for instance_id in (first, second):
        go_off(site, instance_id, "shutdown")
    assert states(ec2, first, second) == ["shutting-down", "stopped"]
    with pytest.raises(ec2.exceptions.ClientError, match="InvalidParameterValue"):
        ec2.modify_instance_attribute(InstanceId=second, InstanceInitiatedShutdownBehavior={"Value": "hibernate"})
    with pytest.raises(ec2.exceptions.ClientError, match="IncorrectInstanceState"):
        ec2.modify_instance_attribute(InstanceId=first, InstanceInitiatedShutdownBehavior={"Value": "stop"})
    with pytest.raises(ec2.exceptions.ClientError, match=r"InvalidInstanceID\.NotFound"):
        ec2.modify_instance_attribute(
            InstanceId="i-0123456789abcdef0", InstanceInitiatedShutdownBehavior={"Value": "stop"}
        )


def test_a_token_means_one_shutdown_behavior(site: Site, ec2: Any) -> None:
    first = ids_of(run(site, ec2, ClientToken="t-1"))
    assert ids_of(run(site, ec2, ClientToken="t-1", InstanceInitiatedShutdownBehavior="stop")) == first
    with pytest.raises(ec2.exceptions.ClientError, match="IdempotentParameterMismatch"):
        run(site, ec2, ClientToken="t-1", InstanceInitiatedShutdownBehavior="terminate")


def test_an_unanswered_delete_is_shutting_down(site: Site, ec2: Any) -> None:
    (instance_id,) = ids_of(run(site, ec2))
    site.work()
    ec2.terminate_instances(InstanceIds=[instance_id])
    site.offset = timedelta(seconds=DEADLINE_S[State.DELETING] + 100)
    assert site.cloud.write(sweeps.expire) == 1
    assert shown(ec2, instance_id) == ("shutting-down", "Client.UserInitiatedShutdown")
    site.work()
    assert states(ec2, instance_id) == ["terminated"]


@pytest.mark.parametrize("path", ["", "/", "/ec2", "/ec2/", "/ec2/services/Cloud/"])
def test_the_door_is_at_each_of_its_paths(site: Site, path: str) -> None:
    assert site.client(path=path).describe_regions()["Regions"][0]["RegionName"] == "pileus"


def test_another_projects_instances_are_not_there(site: Site, ec2: Any) -> None:
    ids = ids_of(run(site, ec2))
    _, _, key, secret = site.new_user("mallory")
    other = site.client(aws_access_key_id=key, aws_secret_access_key=secret)
    assert other.describe_instances()["Reservations"] == []
    for action in ("describe_instances", "stop_instances", "terminate_instances", "reboot_instances"):
        with pytest.raises(other.exceptions.ClientError, match=r"InvalidInstanceID\.NotFound"):
            getattr(other, action)(InstanceIds=ids)
    assert states(ec2, *ids) == ["pending"]
