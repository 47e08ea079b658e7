"""Secrets at rest: one key in a file, others derived from it; hashes for what only has to be recognised."""

import base64
import hashlib
import hmac
import os
import secrets
import stat
from functools import lru_cache
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from controller.conf.settings import Settings
from controller.domain.errors import ConfigurationError
from controller.files import sync_folder

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
    """A salted scrypt hash."""
    salt = secrets.token_bytes(16)
    return f"scrypt${salt.hex()}${hashlib.scrypt(password.encode(), salt=salt, **_SCRYPT).hex()}"


def password_matches(password: str, stored: str) -> bool:
    """Compare in constant time."""
    kind, _, rest = stored.partition("$")
    salt, _, digest = rest.partition("$")
    if kind != "scrypt":
        return False
    return hmac.compare_digest(
        hashlib.scrypt(password.encode(), salt=bytes.fromhex(salt), **_SCRYPT), bytes.fromhex(digest)
    )


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
