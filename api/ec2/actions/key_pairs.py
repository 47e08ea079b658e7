"""CreateKeyPair, ImportKeyPair, DescribeKeyPairs, DeleteKeyPair."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from api.ec2 import queries
from api.ec2.actions.context import Context, Parameters, Result, UnsupportedParameter
from api.ec2.actions.instance_shape import tag_list
from api.ec2.actions.tag_specifications import read_tag_specifications
from api.ec2.protocol.filters import ValuesOf, compile_filters
from controller.db.models import KeyPair
from controller.domain.errors import KeyPairNotFound, MissingParameter
from controller.operations.accounts import key_pairs
from controller.operations.accounts.tags import set_tags
from controller.operations.cloud import Transaction

_KIND = "key-pair"


def create_key_pair(context: Context, params: Parameters) -> Result:
    """https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateKeyPair.html"""
    if params.get("KeyFormat", "pem") != "pem":
        raise UnsupportedParameter(parameter="KeyFormat", reason="keys are made in the form pem")
    tags = _tags(params)

    row, material = key_pairs.create_key_pair(
        context.cloud, context.project_id, params["KeyName"], params.get("KeyType", "rsa"), tags
    )
    return {**_answer(row, tags), "KeyMaterial": material}


def import_key_pair(context: Context, params: Parameters) -> Result:
    """https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ImportKeyPair.html"""
    tags = _tags(params)

    def add(tx: Transaction) -> KeyPair:
        row = key_pairs.import_key_pair(tx, context.project_id, params["KeyName"], params["PublicKeyMaterial"])
        set_tags(tx, context.project_id, row.id, tags)
        return row

    return _answer(context.cloud.write(add), tags)


def describe_key_pairs(context: Context, params: Parameters) -> Result:
    """https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeKeyPairs.html"""

    def read(tx: Transaction) -> tuple[Sequence[KeyPair], dict[str, dict[str, str]]]:
        return key_pairs.list_key_pairs(tx, context.project_id), queries.tags_of(tx, context.project_id, _KIND)

    rows, tags = context.cloud.read(read)
    names, ids = params.get("KeyNames", ()), params.get("KeyPairIds", ())
    missing = [*(set(names) - {r.name for r in rows}), *(set(ids) - {r.id for r in rows})]
    if missing:
        raise KeyPairNotFound(id=", ".join(sorted(missing)[:20]))
    if names or ids:
        rows = [r for r in rows if r.name in names or r.id in ids]
    matches = compile_filters(params.get("Filters", ()), _FILTERS, lambda k: tags.get(k.id, {}))
    with_key = params.get("IncludePublicKey", False)
    return {"KeyPairs": [_shape(r, tags.get(r.id, {}), with_key) for r in rows if matches(r)]}


def delete_key_pair(context: Context, params: Parameters) -> Result:
    """https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DeleteKeyPair.html"""
    name, key_pair_id = params.get("KeyName", ""), params.get("KeyPairId", "")
    if not name and not key_pair_id:
        raise MissingParameter(parameter="KeyName")
    row = context.cloud.write(
        lambda tx: key_pairs.delete_key_pair(tx, context.project_id, name=name, key_pair_id=key_pair_id)
    )
    return {"Return": True, "KeyPairId": row.id if row is not None else None}


def _tags(params: Parameters) -> dict[str, str]:
    return read_tag_specifications(params.get("TagSpecifications", ()), _KIND).get(_KIND, {})


def _answer(row: KeyPair, tags: Mapping[str, str]) -> dict[str, Any]:
    return {
        "KeyPairId": row.id,
        "KeyName": row.name,
        "KeyFingerprint": row.fingerprint,
        "Tags": tag_list(tags),
    }


def _shape(row: KeyPair, tags: Mapping[str, str], with_key: bool) -> dict[str, Any]:
    return {
        **_answer(row, tags),
        "KeyType": row.type,
        "CreateTime": row.created_at,
        "PublicKey": row.public_key if with_key else None,
    }


_FILTERS: Mapping[str, ValuesOf[KeyPair]] = MappingProxyType(
    {
        "fingerprint": lambda k: (k.fingerprint,),
        "key-name": lambda k: (k.name,),
        "key-pair-id": lambda k: (k.id,),
    }
)
