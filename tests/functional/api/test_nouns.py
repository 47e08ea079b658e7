"""Images, types, key pairs, tags, regions, zones, the console and the account, by boto3."""

import base64
from typing import Any

import pytest
from botocore.exceptions import ClientError
from cryptography.hazmat.primitives import serialization

from controller.domain.messages import ConsoleRead
from tests.labs.api_site import Site, ids_of, run

ED25519 = b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIN9b0sVd8QKyHkQ0zF1oYc0oYH9lE1s4w9mD5gYc9bqY me@here"


def test_images(site: Site, ec2: Any) -> None:
    project_id, *_ = site.new_user("bob")
    theirs = site.add_image("theirs", project_id=project_id)
    site.add_image("secret", project_id=project_id, public=False)
    mine = site.add_image("mine", public=False, architecture="aarch64", description="a & b")

    def found(**params: Any) -> list[str]:
        return [i["ImageId"] for i in ec2.describe_images(**params)["Images"]]

    assert found() == [site.image, theirs, mine]
    assert found(Owners=["self"]) == [site.image, mine]
    assert found(Owners=["amazon"]) == [site.image, theirs]
    assert found(Owners=[project_id]) == [theirs]
    assert found(ExecutableUsers=["all"]) == [site.image, theirs]
    assert found(ImageIds=[theirs]) == [theirs]
    assert found(Filters=[{"Name": "name", "Values": ["m*"]}, {"Name": "architecture", "Values": ["arm64"]}]) == [mine]
    assert found(Filters=[{"Name": "is-public", "Values": ["false"]}]) == [mine]
    (shown,) = ec2.describe_images(ImageIds=[mine])["Images"]
    assert (shown["State"], shown["OwnerId"], shown["Description"]) == ("available", site.project_id, "a & b")
    ec2.get_waiter("image_available").wait(ImageIds=[mine])
    with pytest.raises(ClientError, match=r"InvalidAMIID\.NotFound"):
        found(ImageIds=["ami-0123456789abcdef0"])
    with pytest.raises(ClientError, match=r"InvalidAMIID\.Malformed"):
        found(ImageIds=["demo"])


def test_images_in_pages(site: Site, ec2: Any) -> None:
    ids = [site.image, *(site.add_image(f"n{n}") for n in range(11))]
    pages = list(ec2.get_paginator("describe_images").paginate(PaginationConfig={"PageSize": 5}))
    assert [[i["ImageId"] for i in p["Images"]] for p in pages] == [ids[:5], ids[5:10], ids[10:]]


def test_instance_types(ec2: Any) -> None:
    pages = ec2.get_paginator("describe_instance_types").paginate(PaginationConfig={"PageSize": 7})
    types = [t for p in pages for t in p["InstanceTypes"]]
    names = [t["InstanceType"] for t in types]
    assert names[0] == "p1.tiny"
    assert {"t1.micro", "t2.nano", "m5.large"} <= set(names)
    assert len(names) == len(set(names))
    (large,) = ec2.describe_instance_types(InstanceTypes=["m5.large"])["InstanceTypes"]
    assert (large["VCpuInfo"]["DefaultVCpus"], large["MemoryInfo"]["SizeInMiB"]) == (2, 8192)
    assert large["ProcessorInfo"]["SupportedArchitectures"] == ["x86_64"]
    eights = ec2.describe_instance_types(Filters=[{"Name": "vcpu-info.default-vcpus", "Values": ["8"]}])
    assert [t["InstanceType"] for t in eights["InstanceTypes"]] == ["m5.2xlarge"]
    with pytest.raises(ClientError, match=r"x9\.huge"):
        ec2.describe_instance_types(InstanceTypes=["x9.huge"])


@pytest.mark.parametrize("kind", ["rsa", "ed25519"])
def test_created_key_pairs(site: Site, ec2: Any, kind: str) -> None:
    tags = [{"ResourceType": "key-pair", "Tags": [{"Key": "a", "Value": "b"}]}]
    made = ec2.create_key_pair(KeyName="k", KeyType=kind, TagSpecifications=tags)
    material = made["KeyMaterial"].encode()
    if kind == "rsa":
        private: Any = serialization.load_pem_private_key(material, None)
    else:
        private = serialization.load_ssh_private_key(material, None)
    (shown,) = ec2.describe_key_pairs(KeyNames=["k"], IncludePublicKey=True)["KeyPairs"]
    assert shown["KeyFingerprint"] == made["KeyFingerprint"]
    assert shown["Tags"] == made["Tags"] == [{"Key": "a", "Value": "b"}]
    line = (
        private.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()
    )
    assert shown["PublicKey"].startswith(line)
    assert run(site, ec2, KeyName="k")["Instances"][0]["KeyName"] == "k"
    with pytest.raises(ClientError, match=r"InvalidKeyPair\.Duplicate"):
        ec2.create_key_pair(KeyName="k")
    assert ec2.delete_key_pair(KeyName="k")["KeyPairId"] == made["KeyPairId"]
    assert ec2.delete_key_pair(KeyName="k")["Return"] is True
    with pytest.raises(ClientError, match=r"InvalidKeyPair\.NotFound"):
        ec2.describe_key_pairs(KeyNames=["k"])


def test_imported_key_pairs(ec2: Any) -> None:
    imported = ec2.import_key_pair(KeyName="mine", PublicKeyMaterial=ED25519)
    assert ec2.describe_key_pairs(KeyPairIds=[imported["KeyPairId"]])["KeyPairs"][0]["KeyType"] == "ed25519"
    ec2.get_waiter("key_pair_exists").wait(KeyNames=["mine"])
    for garbage in (b"garbage", b"ssh-rsa AAAA", ED25519 + b"\nssh-rsa x", b"\xff\xfe", b'command="x" ' + ED25519):
        with pytest.raises(ClientError, match=r"InvalidKeyPair\.Format"):
            ec2.import_key_pair(KeyName="bad", PublicKeyMaterial=garbage)
    for name in ("", "x" * 256, "a\nb"):
        with pytest.raises(ClientError, match=r"InvalidParameterValue|MissingParameter"):
            ec2.import_key_pair(KeyName=name, PublicKeyMaterial=ED25519)
    with pytest.raises(ClientError, match="UnsupportedOperation"):
        ec2.create_key_pair(KeyName="putty", KeyFormat="ppk")


def test_tags(site: Site, ec2: Any) -> None:
    one, two = ids_of(run(site, ec2, 2))

    def tags(**params: Any) -> list[tuple[str, str, str]]:
        found = ec2.describe_tags(**params)["Tags"]
        return [(t["ResourceId"], t["Key"], t["Value"]) for t in found]

    ec2.create_tags(Resources=[one, two], Tags=[{"Key": "a", "Value": "1"}, {"Key": "b", "Value": ""}])
    ec2.create_tags(Resources=[one], Tags=[{"Key": "a", "Value": "2"}])
    assert tags(Filters=[{"Name": "key", "Values": ["a"]}]) == sorted([(one, "a", "2"), (two, "a", "1")])
    assert tags(Filters=[{"Name": "resource-id", "Values": [two]}]) == [(two, "a", "1"), (two, "b", "")]
    assert len(tags(Filters=[{"Name": "resource-type", "Values": ["instance"]}])) == 4
    ec2.delete_tags(Resources=[one, two], Tags=[{"Key": "a", "Value": "1"}, {"Key": "b", "Value": ""}])
    assert tags() == [(one, "a", "2")]
    ec2.delete_tags(Resources=[one])
    assert tags() == []
    for resources in ([one, "i-0123456789abcdef0"], [one, "garbage"], [one, "ami-x"], [site.project_id], []):
        with pytest.raises(ClientError, match=r"InvalidID|InvalidInstanceID|InvalidAMIID|MissingParameter"):
            ec2.create_tags(Resources=resources, Tags=[{"Key": "x", "Value": "y"}])
    with pytest.raises(ClientError, match="TagLimitExceeded"):
        ec2.create_tags(Resources=[one], Tags=[{"Key": f"k{n}", "Value": "v"} for n in range(51)])
    with pytest.raises(ClientError, match="InvalidParameterValue"):
        ec2.create_tags(Resources=[one], Tags=[{"Key": "x" * 128, "Value": "v"}])
    assert tags() == []


def test_regions_and_zones(site: Site, ec2: Any) -> None:
    site.add_host("host-2", zone="east")
    site.add_host("host-3", zone="west")
    (region,) = ec2.describe_regions()["Regions"]
    assert region["RegionName"] == "pileus"
    zones = ec2.describe_availability_zones(Filters=[{"Name": "state", "Values": ["available"]}])["AvailabilityZones"]
    assert [z["ZoneName"] for z in zones] == ["east", "pileus-1", "west"]
    assert ec2.describe_availability_zones(ZoneNames=["west"])["AvailabilityZones"][0]["RegionName"] == "pileus"
    with pytest.raises(ClientError, match="InvalidParameterValue"):
        ec2.describe_regions(RegionNames=["us-east-1"])
    with pytest.raises(ClientError, match="InvalidParameterValue"):
        ec2.describe_availability_zones(ZoneNames=["mars"])
    placed = run(site, ec2, Placement={"AvailabilityZone": "east"})["Instances"][0]
    assert placed["Placement"]["AvailabilityZone"] == "east"


def test_console_output(site: Site, ec2: Any) -> None:
    (instance_id,) = ids_of(run(site, ec2))
    assert "Output" not in ec2.get_console_output(InstanceId=instance_id)  # no host yet
    site.work()
    with pytest.raises(ClientError) as caught:  # no agent answers
        ec2.get_console_output(InstanceId=instance_id)
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503
    data = base64.b64encode(b"GUEST-UP 10.0.0.2 \x1b[0m\r\n\xff").decode()
    site.bus.consoles[instance_id] = ConsoleRead(instance_id, data)
    answer = ec2.get_console_output(InstanceId=instance_id)
    assert answer["Output"].startswith("GUEST-UP 10.0.0.2")
    assert answer["Timestamp"].tzinfo
    site.bus.consoles[instance_id] = ConsoleRead(instance_id, "", error="the disk is gone")
    with pytest.raises(ClientError, match="Unavailable"):
        ec2.get_console_output(InstanceId=instance_id)
    with pytest.raises(ClientError, match=r"InvalidInstanceID\.NotFound"):
        ec2.get_console_output(InstanceId="i-0123456789abcdef0")


def test_account_and_addresses(ec2: Any) -> None:
    attributes = ec2.describe_account_attributes()["AccountAttributes"]
    values = {a["AttributeName"]: a["AttributeValues"][0]["AttributeValue"] for a in attributes}
    assert (values["supported-platforms"], values["max-instances"]) == ("EC2", "500")
    assert ec2.describe_addresses()["Addresses"] == []
    with pytest.raises(ClientError, match="InvalidParameterValue"):
        ec2.describe_account_attributes(AttributeNames=["colour"])
