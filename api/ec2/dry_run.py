"""`DryRun`: the whole operation with all of its checks, and nothing that stays."""

from collections.abc import Callable
from typing import NoReturn, TypeVar

from api.ec2.protocol.errors import DryRunOperation
from controller.operations.cloud import Cloud, Transaction

T = TypeVar("T")


class DryRun(Cloud):
    """A cloud whose transactions are rolled back when their operation has succeeded; no doorbell is sent."""

    @classmethod
    def of(cls, cloud: Cloud) -> "DryRun":
        """The same engines, without consequences."""
        return cls(cloud.settings, cloud.database, cloud.bus, cloud.clock, cloud.ids)

    def write(self, operation: Callable[[Transaction], T]) -> T:
        """Run the operation and undo it.

        Raises:
            DryRunOperation: it would have succeeded. Otherwise what it raises.
        """

        def rehearse(tx: Transaction) -> NoReturn:
            operation(tx)
            tx.session.flush()
            raise DryRunOperation

        return super().write(rehearse)
