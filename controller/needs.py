"""What a service needs of its process: each service class says it, ``controller.limits`` adds it up."""

from dataclasses import dataclass

# A socket, files and pipes of a thread that downloads an image or runs a program.
FILES_OF_A_WORKER = 8
# An SQLite file with its log and its index.
FILES_OF_SQLITE = 3


@dataclass(frozen=True)
class Needs:
    """The most that one service needs at once with its settings.

    ``database_threads`` may each want a database connection; ``consumers`` have each a connection to the bus, and one
    to publish; ``files`` are open beside those of database and bus.
    """

    database_threads: int = 0
    consumers: int = 0
    files: int = 0
