"""Placement groups, by boto3."""

from typing import Any

import pytest
from botocore.exceptions import ClientError
from sqlalchemy import update

from controller.db.models import Instance
from tests.labs.api_site import Site, ids_of, run

TAGS = [{"Key": "team", "Value": "db"}]


def test_made_shown_and_deleted(ec2: Any) -> None:
    tagged = [{"ResourceType": "placement-group", "Tags": TAGS}]
    made = ec2.create_placement_group(GroupName="apart", Strategy="spread", TagSpecifications=tagged)["PlacementGroup"]
    ec2.create_placement_group(GroupName="together", Strategy="cluster")
    assert (made["State"], made["Strategy"], made["SpreadLevel"], made["Tags"]) == ("available", "spread", "host", TAGS)

    def names(**params: Any) -> list[str]:
        return [g["GroupName"] for g in ec2.describe_placement_groups(**params)["PlacementGroups"]]

    assert names() == ["apart", "together"]
    assert names(GroupIds=[made["GroupId"]]) == names(Filters=[{"Name": "tag:team", "Values": ["d*"]}]) == ["apart"]
    assert names(Filters=[{"Name": "strategy", "Values": ["cluster"]}]) == ["together"]
    ec2.create_tags(Resources=[made["GroupId"]], Tags=[{"Key": "more", "Value": ""}])
    ec2.delete_placement_group(GroupName="apart")
    assert names() == ["together"]
    assert ec2.describe_tags()["Tags"] == []


def test_of_another_project(site: Site, ec2: Any) -> None:
    ec2.create_placement_group(GroupName="mine", Strategy="spread")
    *_, key, secret = site.new_user("bob")
    bob = site.client(aws_access_key_id=key, aws_secret_access_key=secret)
    assert bob.describe_placement_groups()["PlacementGroups"] == []
    with pytest.raises(ClientError, match=r"InvalidPlacementGroup\.Unknown"):
        bob.delete_placement_group(GroupName="mine")
    bob.create_placement_group(GroupName="mine", Strategy="cluster")


def test_one_with_instances_stays(site: Site, ec2: Any) -> None:
    group = ec2.create_placement_group(GroupName="used", Strategy="spread")["PlacementGroup"]["GroupId"]
    ids = ids_of(run(site, ec2))
    site.cloud.write(lambda tx: tx.session.execute(update(Instance).values(group_id=group)))
    with pytest.raises(ClientError, match=r"InvalidPlacementGroup\.InUse.* in use by 1 instances"):
        ec2.delete_placement_group(GroupName="used")
    site.work()
    ec2.terminate_instances(InstanceIds=ids)
    site.work()
    ec2.delete_placement_group(GroupName="used")


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"GroupName": "again", "Strategy": "cluster"}, r"InvalidPlacementGroup\.Duplicate"),
        ({"GroupName": "g", "Strategy": "partition", "PartitionCount": 2}, "UnsupportedOperation"),
        ({"GroupName": "g", "Strategy": "spread", "SpreadLevel": "rack"}, "UnsupportedOperation"),
        ({"GroupName": "g", "Strategy": "spread", "LinkedGroupId": "pg-1"}, "UnsupportedOperation"),
        ({"GroupName": "g", "Strategy": "heap"}, "InvalidParameterValue"),
        ({"GroupName": "x" * 256, "Strategy": "spread"}, "InvalidParameterValue"),
        ({"GroupName": "a\nb", "Strategy": "spread"}, "InvalidParameterValue"),
        ({"Strategy": "spread"}, "MissingParameter"),
    ],
)
def test_refused_placement_groups(ec2: Any, asked: dict[str, Any], code: str) -> None:
    ec2.create_placement_group(GroupName="again", Strategy="spread")
    with pytest.raises(ClientError, match=code):
        ec2.create_placement_group(**asked)
    assert len(ec2.describe_placement_groups()["PlacementGroups"]) == 1


def test_unknown_ones_are_named(ec2: Any) -> None:
    with pytest.raises(ClientError, match=r"InvalidPlacementGroup\.Unknown.*'nope'"):
        ec2.describe_placement_groups(GroupNames=["nope"])
    with pytest.raises(ClientError, match=r"InvalidPlacementGroup\.Unknown"):
        ec2.delete_placement_group(GroupName="nope")
    with pytest.raises(ClientError, match="MissingParameter"):
        ec2.delete_placement_group()
