"""RunInstances: tokens, limits and everything that may be wrong with it."""

import base64
from typing import Any

import pytest
from botocore.exceptions import ClientError
from sqlalchemy import func, select

from controller.db.models import Instance, Project
from controller.operations.accounts import projects
from tests.labs.api_site import TYPE, Site, each, ids_of, run
from tests.labs.ec2_wire import post


def code_of(error: Any) -> str:
    assert isinstance(error, ClientError), error
    return str(error.response["Error"]["Code"])


def rows(site: Site) -> int:
    return site.cloud.read(lambda tx: tx.session.scalar(select(func.count()).select_from(Instance)) or 0)


def test_the_same_token_gives_the_same_instances(site_on_each_engine: Site) -> None:
    site = site_on_each_engine
    ec2 = site.client()
    answers = each(lambda: run(site, ec2, 3, ClientToken="once"), 10)
    assert {tuple(ids_of(a)) for a in answers} == {tuple(ids_of(answers[0]))}
    assert {a["ReservationId"] for a in answers} == {answers[0]["ReservationId"]}
    site.work()
    assert ids_of(run(site, ec2, 3, ClientToken="once")) == ids_of(answers[0])
    ec2.terminate_instances(InstanceIds=ids_of(answers[0]))
    assert ids_of(run(site, ec2, 3, ClientToken="once")) == ids_of(answers[0])
    assert rows(site) == 3
    with pytest.raises(ClientError, match="IdempotentParameterMismatch"):
        run(site, ec2, 2, ClientToken="once")


def test_two_projects_may_use_one_token(site: Site, ec2: Any) -> None:
    _, _, key, secret = site.new_user("bob")
    other = site.client(aws_access_key_id=key, aws_secret_access_key=secret)
    assert ids_of(run(site, ec2, ClientToken="t")) != ids_of(run(site, other, ClientToken="t"))


@pytest.mark.parametrize(
    ("changed", "code", "says"),
    [
        ({"ImageId": "ami-0123456789abcdef0"}, "InvalidAMIID.NotFound", "ami-0123456789abcdef0"),
        ({"ImageId": "ami-1"}, "InvalidAMIID.Malformed", "ami-1"),
        ({"ImageId": ""}, "MissingParameter", "ImageId"),
        ({"InstanceType": "x9.huge"}, "InvalidParameterValue", "x9.huge"),
        ({"KeyName": "nobody"}, "InvalidKeyPair.NotFound", "nobody"),
        ({"MinCount": 0}, "InvalidParameterValue", "MinCount"),
        ({"MinCount": 3, "MaxCount": 2}, "InvalidParameterValue", "MinCount"),
        ({"MinCount": "many"}, "InvalidParameterValue", "MinCount"),
        ({"MaxCount": ""}, "MissingParameter", "MaxCount"),
        ({"MinCount": 501, "MaxCount": 501}, "InstanceLimitExceeded", "500"),
        ({"MinCount": 900, "MaxCount": 900}, "InsufficientInstanceCapacity", "room for 512"),
        ({"MinCount": 2**31 - 1, "MaxCount": 2**31 - 1}, "InvalidParameterValue", "10000"),
        ({"ClientToken": "x" * 65}, "InvalidParameterValue", "ClientToken"),
        ({"Placement": {"AvailabilityZone": "mars-1"}}, "InvalidParameterValue", "mars-1"),
        ({"Placement": {"Tenancy": "dedicated"}}, "UnsupportedOperation", "Placement.Tenancy"),
        ({"SubnetId": "subnet-1"}, "InvalidSubnetID.Malformed", "subnet-1"),
        ({"SubnetId": "subnet-0123456789abcdef0"}, "InvalidSubnetID.NotFound", "subnet-0123456789abcdef0"),
        ({"PrivateIpAddress": "10.128.0"}, "InvalidParameterValue", "no IPv4 address"),
        ({"PrivateIpAddress": "10.128.0.1"}, "InvalidParameterValue", "from 10.128.0.2 to"),
        ({"PrivateIpAddress": "192.168.0.5"}, "InvalidParameterValue", "PrivateIpAddress"),
        ({"PrivateIpAddress": "10.128.0.9", "MaxCount": 2}, "InvalidParameterCombination", "one instance only"),
        ({"Placement": {"GroupName": "nobody"}}, "InvalidPlacementGroup.Unknown", "nobody"),
        ({"SecurityGroupIds": ["sg-1"]}, "UnsupportedOperation", "SecurityGroupId"),
        ({"BlockDeviceMappings": [{"DeviceName": "/dev/vdb"}]}, "UnsupportedOperation", "BlockDeviceMapping"),
        ({"NetworkInterfaces": [{"DeviceIndex": 1}]}, "UnsupportedOperation", "NetworkInterface.1.DeviceIndex"),
        ({"NetworkInterfaces": [{"DeviceIndex": 0}] * 2}, "UnsupportedOperation", "NetworkInterface.2"),
        (
            {"NetworkInterfaces": [{"DeviceIndex": 0, "AssociatePublicIpAddress": True}]},
            "UnsupportedOperation",
            "AssociatePublicIpAddress",
        ),
        ({"NetworkInterfaces": [{"NetworkInterfaceId": "eni-1"}]}, "UnsupportedOperation", "NetworkInterfaceId"),
        ({"NetworkInterfaces": [{"Groups": ["sg-1"]}]}, "UnsupportedOperation", "NetworkInterface.1.Groups"),
        ({"NetworkInterfaces": [{"SubnetId": "net-1"}]}, "InvalidSubnetID.Malformed", "net-1"),
        (
            {"NetworkInterfaces": [{"DeviceIndex": 0}], "PrivateIpAddress": "10.128.0.9"},
            "InvalidParameterCombination",
            "PrivateIpAddress",
        ),
        (
            {"NetworkInterfaces": [{"PrivateIpAddresses": [{"PrivateIpAddress": "10.0.0.9", "Primary": False}]}]},
            "UnsupportedOperation",
            "PrivateIpAddresses",
        ),
        ({"EbsOptimized": True}, "UnsupportedOperation", "EbsOptimized"),
        ({"DisableApiTermination": True}, "UnsupportedOperation", "DisableApiTermination"),
        ({"InstanceInitiatedShutdownBehavior": "hibernate"}, "InvalidParameterValue", "InstanceInitiated"),
        ({"MetadataOptions": {"HttpTokens": "required"}}, "UnsupportedOperation", "MetadataOptions"),
        ({"TagSpecifications": [{"ResourceType": "volume"}]}, "UnsupportedOperation", "volume"),
        (
            {"TagSpecifications": [{"ResourceType": "instance", "Tags": [{"Key": "aws:x", "Value": ""}]}]},
            "InvalidParameterValue",
            "aws:x",
        ),
    ],
)
def test_refused_launch_leaves_nothing_behind(site: Site, ec2: Any, changed: Any, code: str, says: str) -> None:
    params = {"ImageId": site.image, "InstanceType": TYPE, "MinCount": 1, "MaxCount": 1, **changed}
    with pytest.raises(ClientError) as caught:
        ec2.run_instances(**params)
    assert code_of(caught.value) == code
    assert says in str(caught.value)
    assert rows(site) == 0
    project = site.cloud.read(lambda tx: tx.session.get_one(Project, site.project_id))
    assert project.used_instances == 0


def test_parameters_without_effect_are_accepted(site: Site, ec2: Any) -> None:
    run(
        site, ec2, Monitoring={"Enabled": True}, EbsOptimized=False, DisableApiTermination=False,
        InstanceInitiatedShutdownBehavior="stop", SecurityGroups=["default"], CreditSpecification={"CpuCredits": "x"},
        Placement={"AvailabilityZone": "", "Tenancy": "default"}, SubnetId="", KeyName="",
        MetadataOptions={"HttpEndpoint": "enabled", "HttpTokens": "optional"},
    )  # fmt: skip


def test_the_type_has_a_default(site: Site, ec2: Any) -> None:
    answer = ec2.run_instances(ImageId=site.image, MinCount=1, MaxCount=1)
    assert answer["Instances"][0]["InstanceType"] == "m1.small"


@pytest.mark.parametrize("text", ["not base64!", "YQ", base64.b64encode(b"x" * 16385).decode()])
def test_user_data_that_is_refused(site: Site, text: str) -> None:
    form = {"Action": "RunInstances", "ImageId": site.image, "MinCount": "1", "MaxCount": "1", "UserData": text}
    status, body = post(site, form)
    assert (status, b"InvalidUserData.Malformed" in body) == (400, True)
    assert rows(site) == 0


def test_user_data_may_be_as_long_as_ec2s(site: Site, ec2: Any) -> None:
    run(site, ec2, UserData="x" * 16384)


def test_fewer_than_asked_for_where_the_quota_ends(site: Site, ec2: Any) -> None:
    site.cloud.write(lambda tx: projects.set_quota(tx, site.project_id, instances=7))
    answer = ec2.run_instances(ImageId=site.image, InstanceType=TYPE, MinCount=2, MaxCount=100)
    assert len(answer["Instances"]) == 7
    with pytest.raises(ClientError, match="InstanceLimitExceeded"):
        run(site, ec2)


def test_ten_at_once_never_exceed_the_quota(site_on_each_engine: Site) -> None:
    site = site_on_each_engine
    ec2 = site.client()
    site.cloud.write(lambda tx: projects.set_quota(tx, site.project_id, instances=12))
    answers = each(lambda: run(site, ec2, 3), 10)
    assert sum(isinstance(a, dict) for a in answers) == 4
    assert {code_of(a) for a in answers if not isinstance(a, dict)} == {"InstanceLimitExceeded"}
    assert rows(site) == 12


def test_another_projects_private_image(site: Site, ec2: Any) -> None:
    project_id, *_ = site.new_user("bob")
    hidden = site.add_image("hidden", project_id=project_id, public=False)
    with pytest.raises(ClientError, match=r"InvalidAMIID\.NotFound"):
        ec2.run_instances(ImageId=hidden, InstanceType=TYPE, MinCount=1, MaxCount=1)


def test_dry_run_does_nothing(site: Site, ec2: Any) -> None:
    with pytest.raises(ClientError) as caught:
        run(site, ec2, DryRun=True)
    assert code_of(caught.value) == "DryRunOperation"
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 412
    assert rows(site) == 0
    assert site.cloud.read(lambda tx: projects.get_project(tx, site.project_id).used_instances) == 0
    stranger = site.client(aws_secret_access_key="wrong")
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        run(site, stranger, DryRun=True)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"ImageId": "ami-00000000000000000"}, "InvalidAMIID.NotFound"),
        ({"InstanceType": "z9.huge"}, "InvalidParameterValue"),
        ({"KeyName": "nobody"}, "InvalidKeyPair.NotFound"),
        ({"MinCount": 501, "MaxCount": 501}, "InstanceLimitExceeded"),
    ],
)
def test_dry_run_reports_errors(site: Site, ec2: Any, change: dict[str, Any], code: str) -> None:
    with pytest.raises(ClientError) as caught:
        ec2.run_instances(
            **{"ImageId": site.image, "InstanceType": TYPE, "MinCount": 1, "MaxCount": 1, "DryRun": True, **change}
        )
    assert code_of(caught.value) == code
    assert rows(site) == 0


def test_dry_runs_of_other_actions_change_nothing(site: Site, ec2: Any) -> None:
    (instance_id,) = ids_of(run(site, ec2))
    actions: tuple[tuple[Any, dict[str, Any]], ...] = (
        (ec2.terminate_instances, {"InstanceIds": [instance_id]}),
        (ec2.create_tags, {"Resources": [instance_id], "Tags": [{"Key": "a", "Value": "b"}]}),
        (ec2.create_key_pair, {"KeyName": "dry"}),
        (ec2.describe_instances, {}),
    )
    for action, parameters in actions:
        with pytest.raises(ClientError) as caught:
            action(DryRun=True, **parameters)
        assert code_of(caught.value) == "DryRunOperation"
    with pytest.raises(ClientError, match="NotFound"):
        ec2.terminate_instances(DryRun=True, InstanceIds=["i-00000000000000000"])
    (found,) = ec2.describe_instances()["Reservations"][0]["Instances"]
    assert (found["State"]["Name"], found["Tags"]) == ("pending", [])
    assert "dry" not in {k["KeyName"] for k in ec2.describe_key_pairs()["KeyPairs"]}


def test_wrong_states(site: Site, ec2: Any) -> None:
    (instance_id,) = ids_of(run(site, ec2))
    with pytest.raises(ClientError, match="IncorrectInstanceState"):
        ec2.stop_instances(InstanceIds=[instance_id])
    ec2.terminate_instances(InstanceIds=[instance_id])
    with pytest.raises(ClientError, match="IncorrectInstanceState"):
        ec2.start_instances(InstanceIds=[instance_id])
    with pytest.raises(ClientError, match="UnsupportedOperation"):
        ec2.stop_instances(InstanceIds=[instance_id], Hibernate=True)


def test_one_unknown_instance_and_nothing_is_done(site: Site, ec2: Any) -> None:
    ids = ids_of(run(site, ec2, 2))
    with pytest.raises(ClientError, match=r"InvalidInstanceID\.NotFound"):
        ec2.terminate_instances(InstanceIds=[*ids, "i-0123456789abcdef0"])
    shown = ec2.describe_instances(InstanceIds=ids)["Reservations"][0]["Instances"]
    assert {i["State"]["Name"] for i in shown} == {"pending"}
