"""Users, their passwords, tokens and access keys."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import bindparam, or_, select

from controller.db.models import AccessKey, Project, User
from controller.domain.checks import check_name
from controller.domain.errors import AlreadyExists, AuthenticationFailed, InvalidParameter, NotFound, UserNotFound
from controller.operations.cloud import Transaction
from controller.operations.secrets import decrypt, encrypt, hash_password, hash_token

_USER = "usr"


@dataclass(frozen=True)
class Principal:
    """Who makes a request, and in the name of which project."""

    user_id: str
    user_name: str
    project_id: str


def create_user(tx: Transaction, name: str, project_id: str, password: str) -> User:
    """Create a user of a project.

    Raises:
        AlreadyExists, InvalidParameter
    """
    check_name("name", name)
    if ":" in name:
        raise InvalidParameter(parameter="name", value=name[:40], reason="a name has no colon")
    if len(password) < 8:
        raise InvalidParameter(parameter="password", value="***", reason="a password has at least 8 characters")
    if tx.session.scalar(select(User.id).where(User.name == name)):
        raise AlreadyExists(kind="user", id=name)
    user = User(
        id=tx.ids.new(_USER),
        name=name,
        project_id=project_id,
        enabled=True,
        password_hash=hash_password(password),
        created_at=tx.now,
    )
    tx.session.add(user)
    tx.session.flush()
    return user


def list_users(tx: Transaction) -> Sequence[User]:
    """All users, by name."""
    return tx.session.scalars(select(User).order_by(User.name)).all()


def get_user(tx: Transaction, id_or_name: str) -> User:
    """A user by id or name. Raises UserNotFound."""
    found = tx.session.scalar(select(User).where(or_(User.id == id_or_name, User.name == id_or_name)))
    if found is None:
        raise UserNotFound(id=id_or_name)
    return found


def set_enabled(tx: Transaction, id_or_name: str, enabled: bool) -> User:
    """Let a user in, or keep it out with all its keys."""
    user = get_user(tx, id_or_name)
    user.enabled = enabled
    return user


def issue_token(tx: Transaction, user: User) -> str:
    """A new REST token for the user; the old one is no longer valid."""
    token = tx.ids.secret(48)
    user.token_sha256 = hash_token(token)
    return token


def create_access_key(tx: Transaction, user_id: str) -> tuple[AccessKey, str]:
    """A new access key and its secret, which is not shown again."""
    secret = tx.ids.secret()
    key = AccessKey(
        id=tx.ids.access_key(),
        user_id=user_id,
        secret_encrypted=encrypt(tx.settings, secret),
        enabled=True,
        created_at=tx.now,
    )
    tx.session.add(key)
    tx.session.flush()
    return key, secret


def list_access_keys(tx: Transaction, user_id: str) -> Sequence[AccessKey]:
    """The keys of a user, oldest first."""
    return tx.session.scalars(
        select(AccessKey).where(AccessKey.user_id == user_id).order_by(AccessKey.created_at)
    ).all()


def disable_access_key(tx: Transaction, access_key_id: str) -> AccessKey:
    """No request signed with this key is accepted any more. Raises NotFound."""
    key = tx.session.get(AccessKey, access_key_id)
    if key is None:
        raise NotFound(kind="access key", id=access_key_id)
    key.enabled = False
    return key


# Every request asks this.
_VALID_KEY = (
    select(AccessKey.secret_encrypted, User.id, User.name, User.project_id)
    .join(User, User.id == AccessKey.user_id)
    .join(Project, Project.id == User.project_id)
    .where(AccessKey.id == bindparam("access_key_id"), AccessKey.enabled, User.enabled, Project.enabled)
)


def find_access_key(tx: Transaction, access_key_id: str) -> tuple[Principal, str]:
    """Whose key this is, and its secret for checking a signature.

    Raises:
        AuthenticationFailed: no such key, or key, user or project are disabled; it does not say which.
    """
    row = tx.session.connection().execute(_VALID_KEY, {"access_key_id": access_key_id}).one_or_none()
    if row is None:
        raise AuthenticationFailed(reason="the access key is not known or not valid any more")
    return Principal(row.id, row.name, row.project_id), decrypt(tx.settings, row.secret_encrypted)
