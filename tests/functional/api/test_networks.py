"""Networks as subnets of a project's one VPC: shown, and launched into."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from controller.db.models import Instance
from controller.domain.lease_file import LeaseFormat, read_leases
from controller.domain.networks import NetworkKind
from controller.operations.cloud import Transaction
from controller.operations.networks import networks
from controller.operations.networks.pinned_leases import import_leases
from tests.labs.api_site import TYPE, Site, ids_of, run
from tests.labs.ec2_wire import post

LEASES = b"""ip,mac,name,hosts
10.20.0.10,52:54:00:aa:00:10,web-1,host-1
10.20.0.11,52:54:00:aa:00:11,,host-1
"""


def subnet(site: Site, name: str, cidr: str, *, project_id: str | None = None, leases: bytes = b"") -> str:
    """A network, as EC2 calls it; with leases: a pinned one."""
    kind = NetworkKind.PINNED if leases else NetworkKind.POOLED

    def create(tx: Transaction) -> str:
        network = networks.create_network(tx, project_id, name, cidr, kind=kind)
        tx.session.flush()
        if leases:
            import_leases(tx, network.id, read_leases(leases, LeaseFormat.CSV))
        return network.id.replace("net-", "subnet-")

    return site.cloud.write(create)


def shown(ec2: Any, instance_id: str) -> Any:
    (reservation,) = ec2.describe_instances(InstanceIds=[instance_id])["Reservations"]
    return reservation["Instances"][0]


def test_subnets_of_a_project(site: Site, ec2: Any) -> None:
    other, _, key, secret = site.new_user("bob")
    mine = subnet(site, "mine", "10.20.0.0/24", project_id=site.project_id, leases=LEASES)
    everybodys = subnet(site, "everybody's", "192.168.0.0/24")
    theirs = subnet(site, "theirs", "10.22.0.0/24", project_id=other)
    (vpc,) = ec2.describe_vpcs()["Vpcs"]
    assert (vpc["IsDefault"], vpc["State"], vpc["OwnerId"]) == (True, "available", site.project_id)
    assert [a["CidrBlock"] for a in vpc["CidrBlockAssociationSet"]] == [
        "10.128.0.0/10",
        "10.20.0.0/24",
        "192.168.0.0/24",
    ]
    found = {s["SubnetId"]: s for s in ec2.describe_subnets()["Subnets"]}
    assert found.keys() == {mine, everybodys}
    assert {s["VpcId"] for s in found.values()} == {vpc["VpcId"]}
    assert (found[mine]["CidrBlock"], found[mine]["AvailableIpAddressCount"]) == ("10.20.0.0/24", 2)
    assert (found[everybodys]["AvailableIpAddressCount"], found[everybodys]["DefaultForAz"]) == (253, False)
    assert found[mine]["Tags"] == [{"Key": "Name", "Value": "mine"}]
    bob = site.client(aws_access_key_id=key, aws_secret_access_key=secret)
    assert {s["SubnetId"] for s in bob.describe_subnets()["Subnets"]} == {theirs, everybodys}
    for asked in ({"SubnetIds": [theirs]}, {"SubnetIds": [mine, theirs]}):
        with pytest.raises(ClientError, match=r"InvalidSubnetID\.NotFound"):
            ec2.describe_subnets(**asked)
    with pytest.raises(ClientError, match=r"InvalidSubnetID\.NotFound.*" + theirs):
        run(site, ec2, SubnetId=theirs)
    with pytest.raises(ClientError, match=r"InvalidVpcID\.NotFound"):
        bob.describe_vpcs(VpcIds=[vpc["VpcId"]])
    assert ids_of(run(site, ec2, SubnetId=everybodys))
    assert ids_of(run(site, bob, SubnetId=everybodys))


@pytest.mark.parametrize(
    ("name", "value", "count"),
    [
        ("cidr-block", "10.20.*", 1),
        ("cidrBlock", "10.20.0.0/24", 1),
        ("availability-zone", "pileus-1", 2),
        ("default-for-az", "true", 1),
        ("default-for-az", "false", 1),
        ("available-ip-address-count", "253", 1),
        ("state", "available", 2),
        ("state", "pending", 0),
        ("tag:Name", "pool", 1),
        ("map-public-ip-on-launch", "true", 0),
    ],
)
def test_filters_of_subnets(site: Site, ec2: Any, name: str, value: str, count: int) -> None:
    subnet(site, "pool", "10.20.0.0/24", project_id=site.project_id)
    run(site, ec2)  # makes the default network
    wanted = [{"Name": name, "Values": [value]}]
    assert len(ec2.describe_subnets(Filters=wanted)["Subnets"]) == count


def test_filters_and_waiters_of_vpcs(site: Site, ec2: Any) -> None:
    (vpc,) = ec2.describe_vpcs(Filters=[{"Name": "isDefault", "Values": ["true"]}])["Vpcs"]
    for name in ("vpc-id", "cidr", "owner-id"):
        value = {"vpc-id": vpc["VpcId"], "cidr": vpc["CidrBlock"], "owner-id": site.project_id}[name]
        assert ec2.describe_vpcs(Filters=[{"Name": name, "Values": [value]}])["Vpcs"] == [vpc]
    assert ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["false"]}])["Vpcs"] == []
    ec2.get_waiter("vpc_available").wait(VpcIds=[vpc["VpcId"]])
    made = subnet(site, "pool", "10.20.0.0/24")
    ec2.get_waiter("subnet_available").wait(SubnetIds=[made])
    with pytest.raises(ClientError, match="InvalidParameterValue"):
        ec2.describe_subnets(Filters=[{"Name": "colour", "Values": ["red"]}])
    for call, ids in ((ec2.describe_subnets, {"SubnetIds": ["x"]}), (ec2.describe_vpcs, {"VpcIds": ["vpc-1"]})):
        with pytest.raises(ClientError, match=r"\.Malformed"):
            call(**ids)


def test_pages_of_subnets(site: Site, ec2: Any) -> None:
    made = {subnet(site, f"n{n}", f"10.20.{n}.0/24") for n in range(12)}
    pages = list(ec2.get_paginator("describe_subnets").paginate(PaginationConfig={"PageSize": 5}))
    assert [len(p["Subnets"]) for p in pages] == [5, 5, 2]
    assert {s["SubnetId"] for p in pages for s in p["Subnets"]} == made


@pytest.mark.parametrize("interface", [False, True])
def test_into_a_pinned_subnet_with_a_name(site: Site, ec2: Any, interface: bool) -> None:
    made = subnet(site, "web", "10.20.0.0/24", project_id=site.project_id, leases=LEASES)
    if interface:  # as terraform and the console say it
        wanted = {"DeviceIndex": 0, "SubnetId": made, "DeleteOnTermination": True, "AssociatePublicIpAddress": False}
        (first, second) = ids_of(run(site, ec2, 2, NetworkInterfaces=[{**wanted, "Groups": ["default"]}]))
    else:
        (first, second) = ids_of(run(site, ec2, 2, SubnetId=made))
    assert shown(ec2, first)["SubnetId"] == made
    assert "PrivateIpAddress" not in shown(ec2, first)
    site.work()
    by_ip = {i["PrivateIpAddress"]: i for i in (shown(ec2, first), shown(ec2, second))}
    assert by_ip.keys() == {"10.20.0.10", "10.20.0.11"}
    assert by_ip["10.20.0.10"]["PrivateDnsName"] == f"web-1.{site.settings.network.dns_domain}"
    assert by_ip["10.20.0.11"]["PrivateDnsName"] == f"ip-10-20-0-11.{site.settings.network.dns_domain}"
    assert by_ip["10.20.0.10"]["VpcId"] == ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
    named = ec2.describe_instances(Filters=[{"Name": "private-dns-name", "Values": ["web-1.*"]}])["Reservations"]
    assert [i["InstanceId"] for r in named for i in r["Instances"]] == [by_ip["10.20.0.10"]["InstanceId"]]
    with pytest.raises(ClientError, match=r"InsufficientFreeAddressesInSubnet.*has 0 free addresses; 1 were"):
        run(site, ec2, SubnetId=made)


def test_a_batch_larger_than_the_free_leases(site: Site, ec2: Any) -> None:
    made = subnet(site, "web", "10.20.0.0/24", leases=LEASES)
    with pytest.raises(ClientError, match=r"Network 'web' \(10\.20\.0\.0/24\) has 2 free addresses; 3 were asked for"):
        run(site, ec2, 3, SubnetId=made)
    assert ec2.describe_instances()["Reservations"] == []
    many = ec2.run_instances(ImageId=site.image, InstanceType=TYPE, MinCount=1, MaxCount=9, SubnetId=made)
    assert len(many["Instances"]) == 2


def test_an_address_that_is_wanted(site_on_each_engine: Site) -> None:
    site = site_on_each_engine
    ec2 = site.client()
    made = subnet(site, "web", "10.20.0.0/24", leases=LEASES)
    (instance_id,) = ids_of(run(site, ec2, SubnetId=made, PrivateIpAddress="10.20.0.10"))
    assert site.cloud.read(lambda tx: tx.session.get_one(Instance, instance_id).wanted_ip) == "10.20.0.10"
    with pytest.raises(ClientError, match=r"InvalidIPAddress\.InUse.*about to start"):
        run(site, ec2, SubnetId=made, PrivateIpAddress="10.20.0.10")
    with pytest.raises(ClientError, match=r"InvalidParameterValue.*has no lease for it"):
        run(site, ec2, SubnetId=made, PrivateIpAddress="10.20.0.12")
    ids_of(run(site, ec2, SubnetId=made))
    site.work()
    interface = {"DeviceIndex": 0, "SubnetId": made, "PrivateIpAddress": "10.20.0.11"}
    with pytest.raises(ClientError, match=r"InvalidIPAddress\.InUse"):
        run(site, ec2, NetworkInterfaces=[interface])
    listed = {"DeviceIndex": 0, "SubnetId": made, "PrivateIpAddresses": [{"PrivateIpAddress": "10.20.0.11"}]}
    with pytest.raises(ClientError, match=r"InvalidIPAddress\.InUse"):
        run(site, ec2, NetworkInterfaces=[listed])


def test_empty_parameters_are_none(site: Site) -> None:
    form = {"Action": "RunInstances", "ImageId": site.image, "MinCount": "1", "MaxCount": "1", "SubnetId": "",
            "PrivateIpAddress": "", "Placement.GroupName": "", "InstanceType": TYPE}  # fmt: skip
    status, body = post(site, form)
    assert status == 200, body


def test_the_aws_command(site: Site) -> None:
    made = subnet(site, "web", "10.20.0.0/24", leases=LEASES)

    def aws(*arguments: str) -> Any:
        program = Path(sys.executable).with_name("aws")
        argv = [str(program), "ec2", *arguments, "--output", "json"]
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=60, check=True, env={**site.environment(), "PATH": "/usr/bin"}
        )
        return json.loads(done.stdout)

    ran = aws("run-instances", "--image-id", site.image, "--instance-type", TYPE, "--subnet-id", made,
              "--private-ip-address", "10.20.0.10")  # fmt: skip
    assert ran["Instances"][0]["SubnetId"] == made
    assert aws("describe-subnets", "--subnet-ids", made)["Subnets"][0]["AvailableIpAddressCount"] == 2
    assert aws("describe-vpcs")["Vpcs"][0]["IsDefault"] is True
