"""Pages and filters of DescribeInstances, by boto3's own paginators; and what a list costs."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from botocore.exceptions import ClientError
from sqlalchemy import event

from tests.labs.api_site import TYPE, Site, ids_of, run


def instances(answer: Any) -> list[Any]:
    return [i for r in answer["Reservations"] for i in r["Instances"]]


@contextmanager
def counted(site: Site) -> Iterator[list[str]]:
    statements: list[str] = []

    def on_execute(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    event.listen(site.cloud.database.engine, "before_cursor_execute", on_execute)
    try:
        yield statements
    finally:
        event.remove(site.cloud.database.engine, "before_cursor_execute", on_execute)


def test_pages_are_whole_while_instances_come_and_go(site_on_each_engine: Site) -> None:
    site = site_on_each_engine
    ec2 = site.client()
    ids = [*ids_of(run(site, ec2, 12)), *ids_of(run(site, ec2, 12))]
    site.work()
    seen: list[str] = []
    pages = ec2.get_paginator("describe_instances").paginate(PaginationConfig={"PageSize": 5})
    for number, page in enumerate(pages):
        seen += [i["InstanceId"] for i in instances(page)]
        if number == 1:  # one of those shown and one of those to come go, others come
            ec2.terminate_instances(InstanceIds=[ids[0], ids[20]])
            site.work()
            later = ids_of(run(site, ec2, 3))
    assert seen == [*ids, *later]


def test_pages_of_filtered_instances(site: Site, ec2: Any) -> None:
    ids = ids_of(run(site, ec2, 20))
    site.work()
    ec2.stop_instances(InstanceIds=ids[::2])
    site.work()
    stopped = [{"Name": "instance-state-name", "Values": ["stopped"]}]
    pages = list(ec2.get_paginator("describe_instances").paginate(Filters=stopped, PaginationConfig={"PageSize": 6}))
    assert [len(instances(p)) for p in pages] == [6, 4]
    assert [i["InstanceId"] for p in pages for i in instances(p)] == ids[::2]


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"MaxResults": 4}, "InvalidParameterValue"),
        ({"MaxResults": 1001}, "InvalidParameterValue"),
        ({"MaxResults": 5, "InstanceIds": ["i-0123456789abcdef0"]}, "InvalidParameterCombination"),
        ({"NextToken": "garbage"}, "InvalidNextToken"),
        ({"Filters": [{"Name": "colour", "Values": ["red"]}]}, "InvalidParameterValue"),
        ({"Filters": [{"Name": "instance-id"}]}, "InvalidParameterValue"),
        ({"InstanceIds": ["i-123"]}, "InvalidInstanceID.Malformed"),
        ({"InstanceIds": ["'; DROP TABLE instances"]}, "InvalidInstanceID.Malformed"),
        ({"InstanceIds": ["i-0123456789abcdef0"]}, "InvalidInstanceID.NotFound"),
    ],
)
def test_lists_that_cannot_be(site: Site, ec2: Any, more: Any, code: str) -> None:
    run(site, ec2)
    with pytest.raises(ClientError) as caught:
        ec2.describe_instances(**more)
    assert caught.value.response["Error"]["Code"] == code


def test_a_token_is_for_its_own_request(site: Site, ec2: Any) -> None:
    run(site, ec2, 10)
    token = ec2.describe_instances(MaxResults=5)["NextToken"]
    with pytest.raises(ClientError, match="InvalidNextToken"):
        ec2.describe_instances(NextToken=token, Filters=[{"Name": "instance-id", "Values": ["*"]}])
    with pytest.raises(ClientError, match="InvalidNextToken"):
        ec2.describe_instance_status(NextToken=token)


def test_filters(site: Site, ec2: Any) -> None:
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "role", "Value": "db"}, {"Key": "empty", "Value": ""}]}]
    (tagged,) = ids_of(run(site, ec2, TagSpecifications=tags, ClientToken="token-a"))
    plain = ids_of(run(site, ec2, 2))
    site.work()
    shown = {i["InstanceId"]: i for i in instances(ec2.describe_instances())}
    address = shown[plain[1]]["PrivateIpAddress"]

    def found(**filters: Any) -> list[str]:
        wanted = [{"Name": k.replace("__", ":").replace("_", "-"), "Values": v} for k, v in filters.items()]
        return [i["InstanceId"] for i in instances(ec2.describe_instances(Filters=wanted))]

    everything = [tagged, *plain]
    assert found(tag__role=["d?", "web"]) == [tagged]
    assert found(tag__empty=[""]) == [tagged]
    assert found(tag_key=["ro*"]) == found(tag_value=["db"]) == [tagged]
    assert found(client_token=["token-a"]) == [tagged]
    assert found(private_ip_address=[address]) == [plain[1]]
    assert found(private_dns_name=[f"ip-{address.replace('.', '-')}.*"]) == [plain[1]]
    assert found(launch_index=["1"]) == [plain[1]]
    assert found(instance_state_code=["16"], architecture=["x86_64"]) == everything
    assert found(instance_type=[TYPE], image_id=[site.image], owner_id=[site.project_id]) == everything
    assert found(availability_zone=["pileus-1"], hypervisor=["kvm"], root_device_type=["ebs"]) == everything
    assert found(launch_time=["20*Z"]) == everything
    assert found(subnet_id=[shown[tagged]["SubnetId"]], vpc_id=[shown[tagged]["VpcId"]]) == everything
    assert found(vpc_id=["vpc-0"]) == found(key_name=["*"]) == found(reason=["*"]) == []
    assert found(instance_id=[tagged], instance_state_name=["stopped"]) == []


def test_a_list_costs_the_same_statements_whatever_its_length(site: Site, ec2: Any) -> None:
    run(site, ec2, 2)
    site.work()
    with counted(site) as few:
        ec2.describe_instances()
    run(site, ec2, 200)
    site.work()
    with counted(site) as many:
        assert len(instances(ec2.describe_instances())) == 202
    assert len(many) == len(few) <= 8


def test_describe_tags_in_pages(site: Site, ec2: Any) -> None:
    ids = ids_of(run(site, ec2, 4))
    ec2.create_tags(Resources=ids, Tags=[{"Key": f"k{n}", "Value": "v"} for n in range(3)])
    pages = list(ec2.get_paginator("describe_tags").paginate(PaginationConfig={"PageSize": 5}))
    tags = [(t["ResourceId"], t["Key"]) for p in pages for t in p["Tags"]]
    assert [len(p["Tags"]) for p in pages] == [5, 5, 2]
    assert tags == sorted((i, f"k{n}") for i in ids for n in range(3))
