"""What each door answers to each error of the domain: the one table, a row for each error, a column for each door.

Every class of ``controller.domain.errors`` has a row of its own, also where it says what its base class says: an error
that is added is decided here. A door has further errors, of its protocol alone, and a table for these
(``ec2/faults.py``, ``rest/problem.py``); what such a table leaves out is answered as its nearest base class.

``ec2``: HTTP status and code, https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html
``opennebula``: the number beside the text,
https://docs.opennebula.io/stable/integration_and_development/system_interfaces/api.html
``rest``: the status of the problem (RFC 9457); its type is made of the error's own ``code`` (``rest/problem.py``).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType

from controller.domain import errors as domain
from controller.domain.errors import CloudError


class OneCode(IntEnum):
    """OpenNebula's error codes."""

    AUTHENTICATION = 0x0100
    AUTHORIZATION = 0x0200
    NO_EXISTS = 0x0400
    ACTION = 0x0800
    RPC_API = 0x1000
    INTERNAL = 0x2000
    ALLOCATE = 0x4000


@dataclass(frozen=True)
class Ec2Fault:
    """An HTTP status and EC2's code."""

    status: int
    code: str


@dataclass(frozen=True)
class ErrorRow:
    """What the doors answer to one error. The text of an ``internal`` one is for the log, not for the caller."""

    ec2: Ec2Fault
    opennebula: OneCode
    rest: int
    internal: bool = False


INTERNAL = ErrorRow(Ec2Fault(500, "InternalError"), OneCode.INTERNAL, 500, internal=True)

ERRORS: Mapping[type[CloudError], ErrorRow] = MappingProxyType(
    {
        domain.CloudError: INTERNAL,
        # what was asked is wrong
        domain.BadRequest: ErrorRow(Ec2Fault(400, "InvalidRequest"), OneCode.RPC_API, 400),
        domain.MissingParameter: ErrorRow(Ec2Fault(400, "MissingParameter"), OneCode.RPC_API, 400),
        domain.InvalidParameter: ErrorRow(Ec2Fault(400, "InvalidParameterValue"), OneCode.RPC_API, 400),
        domain.InvalidCombination: ErrorRow(Ec2Fault(400, "InvalidParameterCombination"), OneCode.RPC_API, 400),
        domain.IdempotentParameterMismatch: ErrorRow(
            Ec2Fault(400, "IdempotentParameterMismatch"), OneCode.RPC_API, 400
        ),
        domain.InvalidPage: ErrorRow(Ec2Fault(400, "InvalidNextToken"), OneCode.RPC_API, 400),
        domain.Malformed: ErrorRow(Ec2Fault(400, "InvalidID"), OneCode.RPC_API, 400),
        domain.MalformedInstanceId: ErrorRow(Ec2Fault(400, "InvalidInstanceID.Malformed"), OneCode.RPC_API, 400),
        domain.MalformedImageId: ErrorRow(Ec2Fault(400, "InvalidAMIID.Malformed"), OneCode.RPC_API, 400),
        domain.InvalidPublicKey: ErrorRow(Ec2Fault(400, "InvalidKeyPair.Format"), OneCode.ALLOCATE, 400),
        domain.InvalidUserData: ErrorRow(Ec2Fault(400, "InvalidUserData.Malformed"), OneCode.ALLOCATE, 400),
        domain.LeasesRefused: ErrorRow(Ec2Fault(400, "InvalidRequest"), OneCode.ALLOCATE, 400),
        # who asks
        domain.AuthenticationFailed: ErrorRow(Ec2Fault(401, "AuthFailure"), OneCode.AUTHENTICATION, 401),
        domain.SignatureDoesNotMatch: ErrorRow(Ec2Fault(403, "SignatureDoesNotMatch"), OneCode.AUTHENTICATION, 401),
        domain.RequestExpired: ErrorRow(Ec2Fault(400, "RequestExpired"), OneCode.AUTHENTICATION, 401),
        domain.NotAuthorized: ErrorRow(Ec2Fault(403, "UnauthorizedOperation"), OneCode.AUTHORIZATION, 403),
        # what is not there
        # As CreateTags says of an id that no resource has.
        domain.NotFound: ErrorRow(Ec2Fault(400, "InvalidID"), OneCode.NO_EXISTS, 404),
        domain.InstanceNotFound: ErrorRow(Ec2Fault(400, "InvalidInstanceID.NotFound"), OneCode.NO_EXISTS, 404),
        domain.ImageNotFound: ErrorRow(Ec2Fault(400, "InvalidAMIID.NotFound"), OneCode.NO_EXISTS, 404),
        # RunInstances has no code of its own for it.
        domain.InstanceTypeNotFound: ErrorRow(Ec2Fault(400, "InvalidParameterValue"), OneCode.NO_EXISTS, 404),
        domain.KeyPairNotFound: ErrorRow(Ec2Fault(400, "InvalidKeyPair.NotFound"), OneCode.NO_EXISTS, 404),
        domain.NetworkNotFound: ErrorRow(Ec2Fault(400, "InvalidSubnetID.NotFound"), OneCode.NO_EXISTS, 404),
        domain.PlacementGroupNotFound: ErrorRow(Ec2Fault(400, "InvalidPlacementGroup.Unknown"), OneCode.NO_EXISTS, 404),
        domain.ProjectNotFound: ErrorRow(Ec2Fault(400, "InvalidID"), OneCode.NO_EXISTS, 404),
        domain.UserNotFound: ErrorRow(Ec2Fault(400, "InvalidID"), OneCode.NO_EXISTS, 404),
        domain.HostNotFound: ErrorRow(Ec2Fault(400, "InvalidHostID.NotFound"), OneCode.NO_EXISTS, 404),
        domain.HostRemoved: ErrorRow(Ec2Fault(400, "InvalidHostID.NotFound"), OneCode.NO_EXISTS, 404),
        domain.ZoneNotFound: ErrorRow(Ec2Fault(400, "InvalidParameterValue"), OneCode.NO_EXISTS, 404),
        # what is in the way
        domain.Conflict: ErrorRow(Ec2Fault(400, "OperationNotPermitted"), OneCode.ACTION, 409),
        domain.AlreadyExists: ErrorRow(Ec2Fault(400, "ResourceAlreadyExists"), OneCode.ALLOCATE, 409),
        domain.KeyPairExists: ErrorRow(Ec2Fault(400, "InvalidKeyPair.Duplicate"), OneCode.ALLOCATE, 409),
        domain.PlacementGroupExists: ErrorRow(Ec2Fault(400, "InvalidPlacementGroup.Duplicate"), OneCode.ALLOCATE, 409),
        domain.CidrOverlaps: ErrorRow(Ec2Fault(400, "InvalidSubnet.Conflict"), OneCode.ALLOCATE, 409),
        domain.InUse: ErrorRow(Ec2Fault(400, "DependencyViolation"), OneCode.ACTION, 409),
        domain.HostInUse: ErrorRow(Ec2Fault(400, "DependencyViolation"), OneCode.ACTION, 409),
        domain.PlacementGroupInUse: ErrorRow(Ec2Fault(400, "InvalidPlacementGroup.InUse"), OneCode.ACTION, 409),
        domain.AddressInUse: ErrorRow(Ec2Fault(400, "InvalidIPAddress.InUse"), OneCode.ALLOCATE, 409),
        domain.IncorrectInstanceState: ErrorRow(Ec2Fault(400, "IncorrectInstanceState"), OneCode.ACTION, 409),
        domain.ImageUnavailable: ErrorRow(Ec2Fault(400, "InvalidAMIID.Unavailable"), OneCode.ACTION, 409),
        domain.ImageRejected: ErrorRow(Ec2Fault(400, "InvalidParameterValue"), OneCode.ALLOCATE, 400),
        domain.TagLimitExceeded: ErrorRow(Ec2Fault(400, "TagLimitExceeded"), OneCode.ACTION, 409),
        # what there is not enough of
        domain.Exhausted: ErrorRow(Ec2Fault(500, "InsufficientCapacity"), OneCode.ALLOCATE, 503),
        domain.QuotaExceeded: ErrorRow(Ec2Fault(400, "InstanceLimitExceeded"), OneCode.AUTHORIZATION, 403),
        domain.NoValidHost: ErrorRow(Ec2Fault(500, "InsufficientInstanceCapacity"), OneCode.ALLOCATE, 503),
        domain.NoFreeAddress: ErrorRow(Ec2Fault(400, "InsufficientFreeAddressesInSubnet"), OneCode.ALLOCATE, 503),
        domain.NoFreeVlan: ErrorRow(Ec2Fault(500, "InsufficientCapacity"), OneCode.ALLOCATE, 503),
        # what does not work right now
        domain.Unavailable: ErrorRow(Ec2Fault(503, "Unavailable"), OneCode.INTERNAL, 503),
        domain.BusUnavailable: ErrorRow(Ec2Fault(503, "Unavailable"), OneCode.INTERNAL, 503),
        domain.DatabaseUnavailable: ErrorRow(Ec2Fault(503, "Unavailable"), OneCode.INTERNAL, 503),
        domain.AgentTimeout: ErrorRow(Ec2Fault(503, "Unavailable"), OneCode.INTERNAL, 503),
        domain.AgentAway: ErrorRow(Ec2Fault(503, "Unavailable"), OneCode.INTERNAL, 503),
        domain.ClaimConflict: ErrorRow(Ec2Fault(503, "Unavailable"), OneCode.INTERNAL, 503),
        domain.HostError: INTERNAL,
        domain.DriverError: INTERNAL,
        domain.DiskError: INTERNAL,
        domain.ImageFetchError: INTERNAL,
        domain.CommandFailed: INTERNAL,
        domain.ConfigurationError: INTERNAL,
        domain.PoisonMessage: INTERNAL,
        domain.NewerMessage: INTERNAL,
    }
)


def row_for(error: CloudError | type[CloudError]) -> ErrorRow:
    """The row of an error: of its own class, or of the nearest base class of the domain."""
    cls = error if isinstance(error, type) else type(error)
    return next(ERRORS[base] for base in cls.__mro__ if base in ERRORS)
