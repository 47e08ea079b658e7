"""Ids have EC2's form, and an instance's UUID leads back to it."""

import uuid
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from controller.domain.ids import INSTANCE, IdSource, domain_uuid, instance_of_uuid, is_id

clouds = st.integers(0, 2**32 - 1).map(lambda n: f"{n:08x}")
instances = st.integers(0, 2**68 - 1).map(lambda n: f"i-{n:017x}")


@given(clouds, instances)
def test_a_domains_uuid_is_valid_and_leads_back(cloud_id: str, instance_id: str) -> None:
    text = domain_uuid(cloud_id, instance_id)
    assert str(uuid.UUID(text)) == text
    assert uuid.UUID(text).version == 8
    assert instance_of_uuid(cloud_id, text) == instance_id


@given(clouds, clouds, instances)
def test_another_clouds_guest_is_not_ours(one: str, other: str, instance_id: str) -> None:
    if one != other:
        assert instance_of_uuid(one, domain_uuid(other, instance_id)) is None


@given(st.uuids(version=4))
def test_a_strangers_guest_is_not_ours(stranger: uuid.UUID) -> None:
    assert instance_of_uuid("00000000", str(stranger)) is None


def test_ids_have_ec2s_form() -> None:
    ids = IdSource(Random(1))
    assert is_id(ids.new(INSTANCE), INSTANCE)
    assert not is_id(ids.new(INSTANCE), "ami")
    assert not is_id("i-0123456789ABCDEF0", INSTANCE)
    assert not is_id("i-0123456789abcdef0\n", INSTANCE)
    assert len(ids.access_key()) == 20
    assert len(ids.account()) == 12
