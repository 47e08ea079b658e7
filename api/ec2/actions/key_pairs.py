"""CreateKeyPair, ImportKeyPair, DescribeKeyPairs, DeleteKeyPair."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from api.ec2.actions.context import Context, Parameters, Result, UnsupportedParameter
from api.ec2.actions.instance_shape import tag_list
from api.ec2.actions.tag_specifications import read_tag_specifications
from api.ec2.protocol.filters import ValuesOf, compile_filters
from controller.domain.errors import MissingParameter
from controller.operations.accounts import key_pairs
from controller.operations.accounts.key_pairs import KeyPairView

_KIND = "key-pair"


def create_key_pair(context: Context, params: Parameters) -> Result:
    """https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateKeyPair.html"""
    if params.get("KeyFormat", "pem") != "pem":
        raise UnsupportedParameter(parameter="KeyFormat", reason="keys are made in the form pem")
    key, material = key_pairs.create_key_pair(
        context.cloud, context.project_id, params["KeyName"], params.get("KeyType", "rsa"), _tags(params)
    )
    return {**_answer(key), "KeyMaterial": material}


def import_key_pair(context: Context, params: Parameters) -> Result:
    """https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ImportKeyPair.html"""
    name, material, tags = params["KeyName"], params["PublicKeyMaterial"], _tags(params)
    key = context.cloud.write(lambda tx: key_pairs.import_key_pair(tx, context.project_id, name, material, tags))
    return _answer(key)


def describe_key_pairs(context: Context, params: Parameters) -> Result:
    """https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeKeyPairs.html"""
    names, ids = params.get("KeyNames", ()), params.get("KeyPairIds", ())
    keys = context.cloud.read(lambda tx: key_pairs.list_key_pairs(tx, context.project_id, names=names, ids=ids))
    matches = compile_filters(params.get("Filters", ()), _FILTERS, lambda k: k.tags)
    with_key = params.get("IncludePublicKey", False)
    return {"KeyPairs": [_shape(k, with_key) for k in keys if matches(k)]}


def delete_key_pair(context: Context, params: Parameters) -> Result:
    """https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DeleteKeyPair.html"""
    name, key_pair_id = params.get("KeyName", ""), params.get("KeyPairId", "")
    if not name and not key_pair_id:
        raise MissingParameter(parameter="KeyName")
    deleted = context.cloud.write(
        lambda tx: key_pairs.delete_key_pair(tx, context.project_id, name=name, key_pair_id=key_pair_id)
    )
    return {"Return": True, "KeyPairId": deleted}


def _tags(params: Parameters) -> dict[str, str]:
    return read_tag_specifications(params.get("TagSpecifications", ()), _KIND).get(_KIND, {})


def _answer(key: KeyPairView) -> dict[str, Any]:
    return {
        "KeyPairId": key.id,
        "KeyName": key.name,
        "KeyFingerprint": key.fingerprint,
        "Tags": tag_list(key.tags),
    }


def _shape(key: KeyPairView, with_key: bool) -> dict[str, Any]:
    return {
        **_answer(key),
        "KeyType": key.type,
        "CreateTime": key.created_at,
        "PublicKey": key.public_key if with_key else None,
    }


_FILTERS: Mapping[str, ValuesOf[KeyPairView]] = MappingProxyType(
    {
        "fingerprint": lambda k: (k.fingerprint,),
        "key-name": lambda k: (k.name,),
        "key-pair-id": lambda k: (k.id,),
    }
)
