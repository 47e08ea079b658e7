"""Operations that race each other in threads."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from controller.domain.errors import CloudError

RACERS = 50


def race(work: Callable[[int], object], racers: int = RACERS) -> list[object]:
    """All at once; answers with each one's result or its error."""
    line = threading.Barrier(racers)

    def run(n: int) -> object:
        line.wait(30)
        try:
            return work(n)
        except CloudError as error:
            return error

    with ThreadPoolExecutor(racers) as pool:
        return list(pool.map(run, range(racers)))
