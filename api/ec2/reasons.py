"""The reasons of an instance's state as EC2's codes.

https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_StateReason.html
"""

from collections.abc import Mapping
from types import MappingProxyType

from controller.domain.reasons import ReasonCode

FAILED = "Server.InternalError"
USER_INITIATED = "Client.UserInitiatedShutdown"
INSTANCE_INITIATED = "Client.InstanceInitiatedShutdown"

EC2_REASON: Mapping[str, str] = MappingProxyType(
    {
        ReasonCode.NO_CAPACITY: "Server.InsufficientInstanceCapacity",
        ReasonCode.NO_FREE_ADDRESS: "Server.InsufficientFreeAddresses",
        ReasonCode.BUILD_FAILED: FAILED,
        ReasonCode.START_FAILED: FAILED,
        ReasonCode.TIMED_OUT: FAILED,
        ReasonCode.GUEST_REMOVED: FAILED,
        ReasonCode.HOST_FORCE_REMOVED: FAILED,
        ReasonCode.INSTANCE_INITIATED_SHUTDOWN: INSTANCE_INITIATED,
    }
)


def ec2_reason(code: str) -> str:
    """EC2's code of a row's reason; one that an earlier release wrote is EC2's already. Without one, or with one that
    only a newer release knows, the instance failed."""
    return code if "." in code else EC2_REASON.get(code, FAILED)
