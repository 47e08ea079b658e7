"""SSH key pairs; only the public half is ever kept."""

import base64
import binascii
import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from sqlalchemy import select

from controller.db.models import KeyPair
from controller.domain.checks import check_all_found, check_name
from controller.domain.errors import InvalidParameter, InvalidPublicKey, KeyPairExists, KeyPairNotFound
from controller.domain.ids import KEY_PAIR
from controller.operations.accounts import tags
from controller.operations.cloud import Cloud, Transaction

_TYPES = {"ssh-rsa": "rsa", "ssh-ed25519": "ed25519"}
_MAX_BYTES = 16384
_NO_TAGS: Mapping[str, str] = {}


@dataclass(frozen=True)
class KeyPairView:
    """A key pair with its tags."""

    id: str
    name: str
    type: str
    fingerprint: str
    public_key: str
    created_at: datetime
    tags: Mapping[str, str]


def create_key_pair(
    cloud: Cloud, project_id: str, name: str, key_type: str = "rsa", with_tags: Mapping[str, str] = _NO_TAGS
) -> tuple[KeyPairView, str]:
    """A new key pair and its private key in PEM, which is not kept; it is made before the transaction begins.

    The fingerprint is what EC2 shows for a key that it made: SHA-1 of the DER of an RSA private key, SHA-256
    of an ed25519 public key (https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/verify-keys.html).

    Raises:
        KeyPairExists, InvalidParameter
    """
    private, form, fingerprint = _generate(key_type)
    pem = private.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()
    public = private.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    line = f"{public.decode()} {name}"

    def register(tx: Transaction) -> KeyPairView:
        return _add(tx, project_id, name, key_type, fingerprint or _sha256(public), line, with_tags)

    return cloud.write(register), pem


def import_key_pair(
    tx: Transaction, project_id: str, name: str, public_key: bytes, with_tags: Mapping[str, str] = _NO_TAGS
) -> KeyPairView:
    """Keep a public key in OpenSSH's form; the fingerprint of an RSA key is the MD5 of its DER, as EC2's is.

    Raises:
        KeyPairExists, InvalidPublicKey, InvalidParameter
    """
    key_type, line = _parse(public_key)
    loaded = serialization.load_ssh_public_key(line.encode())
    if key_type == "rsa":
        der = loaded.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        digest = hashlib.md5(der, usedforsecurity=False).hexdigest()
        fingerprint = ":".join(digest[n : n + 2] for n in range(0, 32, 2))
    else:
        fingerprint = _sha256(line.encode())
    return _add(tx, project_id, name, key_type, fingerprint, line, with_tags)


def list_key_pairs(
    tx: Transaction, project_id: str, *, names: Collection[str] = (), ids: Collection[str] = ()
) -> Sequence[KeyPairView]:
    """The key pairs of a project, by name; with names or ids only those. Two statements.

    Raises:
        KeyPairNotFound: one of them is not the project's.
    """
    rows = tx.session.scalars(select(KeyPair).where(KeyPair.project_id == project_id).order_by(KeyPair.name)).all()
    tagged = tags.tags_of(tx, project_id, "key-pair")
    check_all_found(names, {row.name for row in rows}, KeyPairNotFound)
    check_all_found(ids, {row.id for row in rows}, KeyPairNotFound)
    chosen = [row for row in rows if row.name in names or row.id in ids] if names or ids else rows
    return [_view(row, tagged.get(row.id, _NO_TAGS)) for row in chosen]


def delete_key_pair(tx: Transaction, project_id: str, *, name: str = "", key_pair_id: str = "") -> str | None:
    """Delete by name or id; answers with the id, or None where there is none, which EC2 does not call an error."""
    query = select(KeyPair).where(KeyPair.project_id == project_id)
    query = query.where(KeyPair.id == key_pair_id) if key_pair_id else query.where(KeyPair.name == name)
    row = tx.session.scalar(query)
    if row is not None:
        tx.session.delete(row)
        tags.forget(tx, [row.id])
    return row.id if row is not None else None


def _generate(
    key_type: str,
) -> tuple[rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey, serialization.PrivateFormat, str]:
    """A private key, the form in which ssh reads it, and its fingerprint where that is one of the private key."""
    if key_type == "ed25519":
        return ed25519.Ed25519PrivateKey.generate(), serialization.PrivateFormat.OpenSSH, ""
    if key_type != "rsa":
        raise InvalidParameter(parameter="key_type", value=key_type, reason="it must be rsa or ed25519")
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    der = private.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    digest = hashlib.sha1(der, usedforsecurity=False).hexdigest()
    fingerprint = ":".join(digest[n : n + 2] for n in range(0, 40, 2))
    return private, serialization.PrivateFormat.TraditionalOpenSSL, fingerprint


def _add(
    tx: Transaction,
    project_id: str,
    name: str,
    key_type: str,
    fingerprint: str,
    public_key: str,
    with_tags: Mapping[str, str],
) -> KeyPairView:
    check_name("key_name", name)
    if tx.session.scalar(select(KeyPair.id).where(KeyPair.project_id == project_id, KeyPair.name == name)):
        raise KeyPairExists(id=name)
    row = KeyPair(
        id=tx.ids.new(KEY_PAIR),
        project_id=project_id,
        name=name,
        type=key_type,
        fingerprint=fingerprint,
        public_key=public_key,
        created_at=tx.now,
    )
    tx.session.add(row)
    tx.session.flush()
    tags.tag_new(tx, project_id, [row.id], with_tags)
    return _view(row, with_tags)


def _view(row: KeyPair, with_tags: Mapping[str, str]) -> KeyPairView:
    return KeyPairView(row.id, row.name, row.type, row.fingerprint, row.public_key, row.created_at, with_tags)


def _parse(public_key: bytes) -> tuple[str, str]:
    """The type and the one clean line of a key: options and line breaks would reach authorized_keys."""
    try:
        text = public_key.decode().strip()
    except UnicodeDecodeError:
        raise InvalidPublicKey(reason="it is not text") from None
    parts = text.split(None, 2)
    if len(public_key) > _MAX_BYTES or len(parts) < 2 or "\n" in text or "\r" in text:
        raise InvalidPublicKey(reason="it must be one line in OpenSSH's form: ssh-ed25519 AAAA... comment")
    key_type = _TYPES.get(parts[0])
    if key_type is None:
        raise InvalidPublicKey(reason=f"{parts[0][:40]} is none of {', '.join(_TYPES)}")
    try:
        serialization.load_ssh_public_key(f"{parts[0]} {parts[1]}".encode())
    except (ValueError, binascii.Error, UnsupportedAlgorithm) as error:
        raise InvalidPublicKey(reason=str(error)[:200]) from error
    comment = "".join(c for c in (parts[2] if len(parts) > 2 else "") if c.isprintable())
    return key_type, f"{parts[0]} {parts[1]} {comment}".strip()


def _sha256(line: bytes) -> str:
    """SHA-256 of the key's blob, as ssh-keygen -l shows it, less its prefix."""
    return base64.b64encode(hashlib.sha256(base64.b64decode(line.split()[1])).digest()).decode()
