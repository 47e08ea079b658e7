"""Measures, at intervals, which guests still boot and how busy the host is, for the boot limiter."""

import threading
import time
from collections.abc import Mapping

import structlog

from compute_agent.driver import Driver
from compute_agent.workers.boot_limiter import TICK_S
from compute_agent.workers.cpu_gauge import CpuGauge
from compute_agent.workers.pool import WorkerPool
from controller.domain.errors import CloudError

log = structlog.get_logger(__name__)

_TICKS_TO_ADAPT = 4


class BootMonitor:
    """For one host; ``run`` is a thread's body."""

    def __init__(self, pool: WorkerPool, host: str, driver: Driver) -> None:
        self._pool = pool
        self._host = host
        self._driver = driver
        self._gauge = CpuGauge(time.monotonic)

    def run(self, stop: threading.Event) -> None:
        """Until ``stop``."""
        ticks = 0
        while not stop.wait(TICK_S):
            ticks += 1
            try:
                self._pool.watch_boots(self._wanted())
                if ticks % _TICKS_TO_ADAPT == 0 and (pressure := self._gauge.read()) is not None:
                    self._pool.adapt(pressure)
            except Exception:
                log.exception("boots are not watched, tried again")

    def _wanted(self) -> Mapping[tuple[str, str], float]:
        """What each booting guest wants of the CPU; empty if the hypervisor does not answer."""
        booting = [instance_id for _, instance_id in self._pool.booting()]
        if not booting:
            return {}
        try:
            wanted = self._driver.wanted_cpu_s(booting)
        except CloudError as error:
            log.warning("guests that boot cannot be asked", host=self._host, reason=str(error))
            return {}
        return {(self._host, instance_id): wanted_s for instance_id, wanted_s in wanted.items()}
