"""How a host joins the cloud: the tokens that an operator creates, and the joining itself."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from fnmatch import fnmatchcase

import structlog
from sqlalchemy import CursorResult, delete, select, update

from controller.db.models import Host, JoinToken
from controller.domain.errors import AuthenticationFailed, Conflict, InvalidParameter, NotAuthorized, NotFound
from controller.domain.host_facts import check_facts
from controller.domain.messages import HostReported
from controller.operations.cloud import Transaction
from controller.operations.hosts import hosts
from controller.operations.secrets import hash_token

log = structlog.get_logger(__name__)

_TOKEN = "tok"  # noqa: S105 - the prefix of its id
_PATTERN = re.compile(r"[A-Za-z0-9._*?\[\]!-]{1,255}", re.ASCII)
_MOST_USES = 100_000
_LONGEST = timedelta(days=366)
# Expired tokens are listed for so long, so that an operator sees why a host was refused.
_FORGOTTEN_AFTER = timedelta(days=7)


@dataclass(frozen=True)
class Joined:
    """What a host needs to run its agent, the bus's password included. ``renewed``: it was registered already."""

    host: str
    renewed: bool
    cloud_id: str
    bus_url: str
    public_url: str
    zone: str
    network: Mapping[str, str]


def create_token(
    tx: Transaction, name_pattern: str = "*", uses: int = 1, valid: timedelta = timedelta(days=1)
) -> tuple[JoinToken, str]:
    """A new token, and its secret, which is neither stored nor shown again.

    Raises:
        InvalidParameter
    """
    if not _PATTERN.fullmatch(name_pattern):
        reason = "a pattern has 1 to 255 letters, digits and ._-, with *, ? and [...] as a shell has them"
        raise InvalidParameter(parameter="name_pattern", value=ascii(name_pattern[:60]).strip("'"), reason=reason)
    if not 1 <= uses <= _MOST_USES:
        raise InvalidParameter(parameter="uses", value=uses, reason=f"it lies between 1 and {_MOST_USES}")
    if not timedelta(seconds=1) <= valid <= _LONGEST:
        raise InvalidParameter(parameter="expires", value=valid, reason="it lies between a second and a year")
    tx.session.execute(delete(JoinToken).where(JoinToken.expires_at < tx.now - _FORGOTTEN_AFTER))
    secret = tx.ids.secret()
    token = JoinToken(
        id=tx.ids.new(_TOKEN),
        token_sha256=hash_token(secret),
        name_pattern=name_pattern,
        uses_left=uses,
        expires_at=tx.now + valid,
        created_at=tx.now,
    )
    tx.session.add(token)
    return token, secret


def list_tokens(tx: Transaction) -> Sequence[JoinToken]:
    """All tokens, the newest first."""
    return tx.session.scalars(select(JoinToken).order_by(JoinToken.created_at.desc(), JoinToken.id)).all()


def revoke_token(tx: Transaction, token_id: str) -> None:
    """Refuse this token from now on; hosts that have joined with it stay. Raises NotFound."""
    gone = tx.session.execute(delete(JoinToken).where(JoinToken.id == token_id))
    if _count(gone) != 1:
        raise NotFound(kind="join token", id=token_id)


def join(tx: Transaction, secret: str, facts: HostReported) -> Joined:
    """Register a host by a token.

    The same host may join again, as after a lost answer: that renews it and uses up nothing of the token.

    Raises:
        AuthenticationFailed: no such token, or it is expired or used up. NotAuthorized: it is for other names.
        InvalidParameter: something that cannot be true of a host. Conflict: the name is another, living host's,
        or this cloud takes no hosts.
    """
    if tx.settings.embedded_bus:
        reason = "This cloud's bus is the memory of one process: hosts join a site whose [bus] url is a RabbitMQ's"
        raise Conflict(reason=reason)
    check_facts(facts, joining=True)
    token = _valid_token(tx, secret, facts.host)
    host = tx.session.get(Host, facts.host, with_for_update=True)
    renewed = host is not None
    if host is None or not _is_same(host, facts):
        if host is not None and _lives(tx, host):
            reason = (
                f"Another host named '{host.id}' is alive, last seen at {host.last_seen_at:%FT%TZ}: "
                "choose another name, or stop that one"
            )
            raise Conflict(reason=reason)
        _use(tx, token)
    host = _enter(tx, host, facts)
    log.info("host joined", host=host.id, by=token.id, renewed=renewed)
    return _answer(tx, host, renewed)


def _valid_token(tx: Transaction, secret: str, name: str) -> JoinToken:
    # Looked up by its hash, so the time that this takes says nothing about the secret.
    token = tx.session.scalar(select(JoinToken).where(JoinToken.token_sha256 == hash_token(secret)))
    if token is None:
        raise AuthenticationFailed(reason="there is no such join token, or it was revoked")
    if token.expires_at <= tx.now:
        raise AuthenticationFailed(reason=f"the join token expired at {token.expires_at:%FT%TZ}")
    if not fnmatchcase(name, token.name_pattern):
        raise NotAuthorized(action=f"join as '{name}': the token is for hosts named {token.name_pattern}")
    return token


def _is_same(host: Host, facts: HostReported) -> bool:
    return bool(facts.boot_id) and host.boot_id == facts.boot_id


def _lives(tx: Transaction, host: Host) -> bool:
    """Up, or registered a moment ago and still to send its first heartbeat."""
    silent_s = (tx.now - host.last_seen_at).total_seconds()
    return host.up or silent_s < tx.settings.controller.host_down_after_s


def _use(tx: Transaction, token: JoinToken) -> None:
    used = tx.session.execute(
        update(JoinToken)
        .where(JoinToken.id == token.id, JoinToken.uses_left > 0, JoinToken.expires_at > tx.now)
        .values(uses_left=JoinToken.uses_left - 1)
        .execution_options(synchronize_session=False)
    )
    if _count(used) != 1:
        raise AuthenticationFailed(reason="the join token is used up")


def _enter(tx: Transaction, host: Host | None, facts: HostReported) -> Host:
    """The host's row: what it is now is what is registered of it. Its first heartbeat makes it up."""
    if host is None:
        host = hosts.register(tx, facts)
        host.up = False
        return host
    hosts.set_facts(tx, host, facts)
    host.drift = ""
    host.last_seen_at = tx.now
    return host


def _answer(tx: Transaction, host: Host, renewed: bool) -> Joined:
    settings = tx.settings
    return Joined(
        host=host.id,
        renewed=renewed,
        cloud_id=settings.general.cloud_id,
        bus_url=settings.compute.agent_bus_url or settings.bus.url,
        public_url=settings.public_url,
        zone=host.zone,
        network={"trunk": settings.network.trunk, "physical_network": settings.network.physical_network},
    )


def _count(result: object) -> int:
    assert isinstance(result, CursorResult)
    return result.rowcount
