"""The bus: each broker reachable, of a version with quorum queues, and a message makes its way through one."""

import time
import uuid
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import amqp.exceptions
from kombu import Connection, Queue

from controller.bus.connection import BROKER_ERRORS, connect
from controller.bus.topology import Topology
from controller.cli.checks.item import Item, Status, Subject, fail, ok, warn
from controller.conf.settings import Settings

_OLDEST = (3, 10)
_ROUND_TRIP_S = 5.0
_EXPIRES_MS = 60000


def probe(subject: Subject) -> Sequence[Item]:
    """Each broker of the URL by itself, then one message through a temporary queue."""
    settings = subject.settings
    if settings.embedded_bus:
        return [ok("bus", "the memory of the process: nothing to reach")]
    brokers = [replace(settings, bus=replace(settings.bus, url=u)) for u in settings.bus.url.split(";") if u.strip()]
    found = [_broker(broker, len(brokers)) for broker in brokers]
    alive = [broker for broker, item in zip(brokers, found, strict=True) if item.status == Status.OK]
    if not alive:
        return found
    # The others carry the bus meanwhile.
    found = [replace(i, status=Status.WARN) if i.status == Status.FAIL else i for i in found]
    cluster = [_cluster(alive)] if len(alive) > 1 else []
    return [*found, *cluster, _round_trip(alive[0])]


def _broker(settings: Settings, of: int) -> Item:
    try:
        with connect(settings) as connection:
            where = f"{connection.hostname}:{connection.port or 5672}"
            name = "bus" if of == 1 else f"bus {where}"
            connection.connect()
            properties: dict[str, Any] = connection.connection.server_properties
    except amqp.exceptions.AccessRefused:
        return fail(name, f"{where} refuses user or password", "see [bus] url, and `rabbitmqctl add_user`")
    except amqp.exceptions.NotAllowed:
        advice = "`rabbitmqctl add_vhost`, then `rabbitmqctl set_permissions`"
        return fail(name, f"{where} has no such virtual host, or not for this user", advice)
    except BROKER_ERRORS as error:
        advice = "is it running, and is [bus] url right?"
        return fail(name, f"{where} cannot be reached: {error or type(error).__name__}", advice)
    return _version(name, where, properties)


def _version(name: str, where: str, properties: dict[str, Any]) -> Item:
    product, version = properties.get("product", "an unknown broker"), str(properties.get("version", ""))
    seen = f"{product} {version} at {where}"
    numbers = tuple(int(n) for n in version.split(".")[:2] if n.isdecimal())
    if product != "RabbitMQ":
        return warn(name, seen, "only RabbitMQ has been tried")
    if numbers < _OLDEST:
        return fail(name, seen, f"{'.'.join(map(str, _OLDEST))} is the oldest that works")
    return ok(name, seen)


def _cluster(brokers: Sequence[Settings]) -> Item:
    """Whether they are one cluster: by their cluster's name, and as that can be given to any broker, by a queue that is
    declared with one and seen by the others."""
    advice = "`rabbitmqctl join_cluster` makes them one: else what one service sends, another never hears"
    names = {_where(broker): _cluster_name(broker) for broker in brokers}
    if len(set(names.values())) > 1:
        seen = ", ".join(f"{where} is of cluster {name}" for where, name in names.items())
        return fail("cluster", f"these brokers are not one: {seen}", advice)
    try:
        blind = _blind(brokers)
    except BROKER_ERRORS as error:
        return fail("cluster", f"it cannot be tried: {error or type(error).__name__}", "look into the broker's log")
    if blind:
        seen = f"{', '.join(blind)} and {_where(brokers[0])} call their cluster {names[blind[0]]}, but are not one"
        return fail("cluster", seen, advice)
    return ok("cluster", f"{len(brokers)} brokers of {next(iter(names.values()))}")


def _blind(brokers: Sequence[Settings]) -> list[str]:
    """The brokers that do not know a queue that the first one has."""
    topology = Topology(brokers[0])
    name = f"{topology.exchange.name}.check.{uuid.uuid4().hex}"
    found = []
    with connect(brokers[0]) as first:
        channel = first.channel()
        channel.queue_declare(name, durable=True, auto_delete=False, arguments={"x-expires": _EXPIRES_MS})
        for broker in brokers[1:]:
            with connect(broker) as other:
                try:
                    other.channel().queue_declare(name, passive=True)
                except amqp.exceptions.NotFound:
                    found.append(_where(broker))
        channel.queue_delete(name)
    return found


def _cluster_name(settings: Settings) -> str:
    with connect(settings) as connection:
        connection.connect()
        return str(connection.connection.server_properties.get("cluster_name", "no name"))


def _where(settings: Settings) -> str:
    with connect(settings) as connection:
        return f"{connection.hostname}:{connection.port or 5672}"


def _round_trip(settings: Settings) -> Item:
    """A quorum queue is declared, takes a message that the broker confirms, gives it back, and is deleted."""
    topology = Topology(settings)
    name = f"{topology.exchange.name}.check.{uuid.uuid4().hex}"
    arguments = {"x-queue-type": "quorum", "x-expires": _EXPIRES_MS}
    queue = Queue(name, exchange=topology.exchange, routing_key=name, durable=True, queue_arguments=arguments)
    begin = time.monotonic()
    try:
        with connect(settings) as connection:
            seen = _send_and_get(connection, queue)
    except amqp.exceptions.AccessRefused as error:
        advice = (
            f"`rabbitmqctl set_permissions -p VHOST USER '^pileus\\.' '^pileus\\.' '^pileus\\.'` ({error.reply_text})"
        )
        return fail("quorum queue", "the user may not declare, write or read", advice)
    except amqp.exceptions.AMQPError as error:
        advice = "a quorum queue needs a majority of the cluster's nodes: `rabbitmqctl cluster_status`"
        return fail("quorum queue", str(error), advice)
    except BROKER_ERRORS as error:
        return fail("quorum queue", str(error) or type(error).__name__, "is a majority of the brokers running?")
    if not seen:
        return fail("quorum queue", "a confirmed message did not come back", "look into the broker's log")
    took_ms = (time.monotonic() - begin) * 1000
    return ok("quorum queue", f"declared, a message confirmed and received, deleted: {took_ms:.0f} ms")


def _send_and_get(connection: Connection, queue: Queue) -> bool:
    channel = connection.channel()
    channel.confirm_select()
    bound = queue(channel)
    bound.declare()
    try:
        channel.basic_publish_confirm(
            channel.prepare_message("check", content_type="text/plain", content_encoding="utf-8"),
            queue.exchange.name,
            queue.routing_key,
            mandatory=True,
            timeout=_ROUND_TRIP_S,
        )
        end = time.monotonic() + _ROUND_TRIP_S
        while time.monotonic() < end:
            if bound.get(no_ack=True) is not None:
                return True
            time.sleep(0.02)
        return False
    finally:
        bound.delete()
