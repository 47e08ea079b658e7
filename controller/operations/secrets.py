"""Secrets at rest: one key in a file, others derived from it; hashes for what only has to be recognised."""

import base64
import hashlib
import hmac
import os
import secrets
import stat
from functools import lru_cache
from pathlib import Path

from cryptography.exceptions import InvalidKey
from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from controller.conf.settings import Settings
from controller.domain.errors import ConfigurationError
from controller.files import sync_folder

# The OWASP Password Storage Cheat Sheet's parameters for Argon2id; memory in KiB.
_ITERATIONS, _LANES, _MEMORY_KIB = 2, 1, 19 * 1024
# Passwords of release 0.1.
_SCRYPT = {"n": 2**14, "r": 8, "p": 1}


def create_key_file(path: Path) -> None:
    """Write a new key; an existing one stays.

    It is readable by its owner alone, and by the group of a folder that gives its group to its files, as /etc/pileus.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    mode = 0o640 if path.parent.stat().st_mode & stat.S_ISGID else 0o600
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError:
        return
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_hex(32) + "\n")
        file.flush()
        os.fsync(file.fileno())
    sync_folder(path.parent)


def encrypt(settings: Settings, secret: str) -> str:
    """Encrypt a secret for the database."""
    return _fernet(settings.secret_key_file).encrypt(secret.encode()).decode()


def decrypt(settings: Settings, text: str) -> str:
    """What ``encrypt`` was given.

    Raises:
        ConfigurationError: it was encrypted with another key.
    """
    return _decrypt(settings.secret_key_file, text)


def derived_key(settings: Settings, purpose: str) -> bytes:
    """A key for one purpose, the same in every process that has the key file."""
    return _derive(settings.secret_key_file, purpose)


def hash_password(password: str) -> str:
    """A salted Argon2id hash in the PHC string format (RFC 9106)."""
    salt = secrets.token_bytes(16)
    argon2 = Argon2id(salt=salt, length=32, iterations=_ITERATIONS, lanes=_LANES, memory_cost=_MEMORY_KIB)
    return argon2.derive_phc_encoded(password.encode())


def password_matches(password: str, stored: str) -> bool:
    """Compare in constant time; ``stored`` is what ``hash_password`` of this or an earlier release returned."""
    if stored.startswith("scrypt$"):
        salt, _, digest = stored.removeprefix("scrypt$").partition("$")
        found = hashlib.scrypt(password.encode(), salt=bytes.fromhex(salt), **_SCRYPT)
        return hmac.compare_digest(found, bytes.fromhex(digest))
    try:
        Argon2id.verify_phc_encoded(password.encode(), stored)
    except (InvalidKey, ValueError):
        return False
    return True


def hash_token(token: str) -> str:
    """Tokens are long and random, a plain hash is enough."""
    return hashlib.sha256(token.encode()).hexdigest()


@lru_cache(maxsize=256)
def _decrypt(path: Path, text: str) -> str:
    """Kept for the texts that were asked for last: each signed request asks for its key's."""
    try:
        return _fernet(path).decrypt(text.encode()).decode()
    except InvalidToken:
        reason = f"{path} is not the key with which this database's secrets were encrypted"
        raise ConfigurationError(reason=reason) from None


@lru_cache(maxsize=8)
def _fernet(path: Path) -> Fernet:
    return Fernet(base64.urlsafe_b64encode(_derive(path, "secrets-at-rest")))


@lru_cache(maxsize=32)
def _derive(path: Path, purpose: str) -> bytes:
    try:
        master = bytes.fromhex(path.read_text().strip())
    except (OSError, ValueError) as error:
        raise ConfigurationError(reason=f"the key file {path} cannot be read: {error}") from error
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=purpose.encode()).derive(master)
