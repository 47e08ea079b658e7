"""The private servers of the tests are what they should be."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from kombu import Connection, Exchange, Queue
from sqlalchemy import create_engine, inspect, text

from tests.labs.servers.guarded import ServerError, find_program, wait_until
from tests.labs.servers.mariadb import MariaDB
from tests.labs.servers.postgresql import PostgreSQL
from tests.labs.servers.rabbitmq import RabbitMQ

pytestmark = pytest.mark.functional

QUEUE = Queue("servers", Exchange("servers", durable=True), "servers", queue_arguments={"x-queue-type": "quorum"})


def publish(server: RabbitMQ, body: str) -> None:
    with Connection(server.url, transport_options={"confirm_publish": True}) as connection:
        connection.Producer().publish(
            body, exchange=QUEUE.exchange, routing_key="servers", declare=[QUEUE], mandatory=True
        )


def consume(server: RabbitMQ) -> str:
    with Connection(server.url) as connection:
        queue = connection.SimpleQueue(QUEUE)
        message = queue.get(timeout=20)
        message.ack()
        return str(message.payload)


def folder_in_use(folder: Path) -> bool:
    """Whether a process still works in a folder or below it."""
    for link in Path("/proc").glob("[0-9]*/cwd"):
        try:
            if link.readlink().is_relative_to(folder):
                return True
        except OSError:
            continue
    return False


def test_rabbitmq_delivers_and_keeps(rabbitmq: RabbitMQ) -> None:
    publish(rabbitmq, "one")
    assert consume(rabbitmq) == "one"
    publish(rabbitmq, "two")
    rabbitmq.wait_durable("servers")
    rabbitmq.kill()
    rabbitmq.start()
    assert consume(rabbitmq) == "two"


def test_rabbitmq_leaves_nothing(rabbitmq: RabbitMQ) -> None:
    assert folder_in_use(rabbitmq.folder)
    rabbitmq.stop()
    assert not rabbitmq.running
    assert not folder_in_use(rabbitmq.folder)
    rabbitmq.start()


def test_database_is_empty_and_works(database_url: str) -> None:
    engine = create_engine(database_url)
    with engine.begin() as connection:
        assert connection.execute(text("SELECT 1")).scalar() == 1
        assert inspect(connection).get_table_names() == []
        connection.execute(text("CREATE TABLE t (name VARCHAR(20))"))
        connection.execute(text("INSERT INTO t VALUES ('Grüße 🍄')"))
    with engine.connect() as connection:
        assert connection.execute(text("SELECT name FROM t")).scalar() == "Grüße 🍄"
    engine.dispose()


@pytest.mark.parametrize("name", ["postgresql", "mariadb"])
def test_database_survives_kill(name: str, request: pytest.FixtureRequest) -> None:
    server: PostgreSQL | MariaDB = request.getfixturevalue(name)
    url = server.new_database()
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE t (number INTEGER)"))
    server.kill()
    assert not server.running
    server.start()
    engine.dispose()
    with engine.connect() as connection:
        assert inspect(connection).get_table_names() == ["t"]
    engine.dispose()
    server.drop_database(url)


def test_dies_with_a_killed_test_run() -> None:
    program = (
        "import sys\n"
        "from tests.labs.servers.postgresql import PostgreSQL\n"
        "server = PostgreSQL()\n"
        "server.start()\n"
        "print(server.folder, flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as run:
        assert run.stdout is not None
        folder = Path(run.stdout.readline().strip())
        assert folder_in_use(folder)
        os.kill(run.pid, signal.SIGKILL)
    wait_until(lambda: not folder_in_use(folder), deadline_s=10, what=lambda: f"processes in {folder}")
    subprocess.run(["rm", "-rf", "--", str(folder)], check=True)


def test_missing_program_is_named_with_its_package() -> None:
    with pytest.raises(ServerError, match="apt-get install mariadb-server"):
        find_program("no-such-program", package="mariadb-server")
