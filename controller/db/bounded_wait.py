"""PostgreSQL connections with a limit on the wait for an answer; libpq itself would wait for ever."""

import time
from collections.abc import Callable, Generator
from typing import Any

import psycopg


class BoundedConnector:
    """Opens connections whose every statement is answered within ``answer_s`` or fails.

    The server's own time-outs need a server that lives; a keepalive probe needs no more than its kernel. Neither
    helps when the network loses every packet, or when the server's disk no longer answers.
    """

    def __init__(self, answer_s: float) -> None:
        self._answer_s = answer_s

    def connect(self, *arguments: Any, **options: Any) -> "BoundedConnection":
        """See ``psycopg.connect``. Raises psycopg.OperationalError."""
        connection = BoundedConnection.connect(*arguments, **options)
        connection.answer_s = self._answer_s
        return connection


class BoundedConnection(psycopg.Connection[Any]):
    """Closes itself when an answer has not come in time: what was asked may or may not have been done."""

    answer_s: float | None = None

    def wait(self, gen: Generator[Any, Any, Any], *arguments: Any, **options: Any) -> Any:
        """Every wait of a connection goes through here; psycopg wakes ``gen`` ten times a second."""
        bounded = gen if self.answer_s is None else _bounded(gen, self.answer_s, self._time_out)
        return super().wait(bounded, *arguments, **options)

    def _time_out(self) -> None:
        self.close()
        raise psycopg.OperationalError(f"no answer within {self.answer_s:g} s")


def _bounded(gen: Generator[Any, Any, Any], answer_s: float, time_out: Callable[[], None]) -> Generator[Any, Any, Any]:
    """The same generator, but ``time_out`` is called when nothing has come of it in time."""
    end = time.monotonic() + answer_s
    try:
        state = next(gen)
        while True:
            ready = yield state
            if not ready and time.monotonic() > end:
                gen.close()
                time_out()
            state = gen.send(ready)
    except StopIteration as done:
        return done.value
