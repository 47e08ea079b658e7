"""`DryRun`: the whole operation with all of its checks, rolled back at its end."""

from collections.abc import Callable
from typing import NoReturn, TypeVar

from api.ec2.protocol.errors import DryRunOperation
from controller.operations.cloud import Cloud, Transaction

T = TypeVar("T")


class DryRun(Cloud):
    """A cloud whose transactions are rolled back when their operation has succeeded; no doorbell is sent."""

    @classmethod
    def of(cls, cloud: Cloud) -> "DryRun":
        """A cloud on the same database, bus, clock and ids."""
        return cls(cloud.settings, cloud.database, cloud.bus, cloud.clock, cloud.ids)

    def write(self, operation: Callable[[Transaction], T]) -> T:
        """Run the operation and undo it.

        Raises:
            DryRunOperation: it would have succeeded. Otherwise what it raises.
        """

        def run_and_undo(tx: Transaction) -> NoReturn:
            operation(tx)
            tx.session.flush()
            raise DryRunOperation

        return super().write(run_and_undo)
