"""How EC2 says what went wrong: the one table from the errors of the domain to HTTP statuses and EC2 codes.

The codes are public and permanent; https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from api.ec2.protocol import errors as protocol
from api.ec2.protocol.response import error_document
from controller.domain import errors as domain
from controller.domain.errors import CloudError


@dataclass(frozen=True)
class Fault:
    """What EC2 answers; the text of an internal fault is for the log, not for the caller."""

    status: int
    code: str
    internal: bool = False


_INTERNAL = Fault(500, "InternalError", internal=True)

FAULTS: Mapping[type[CloudError], Fault] = MappingProxyType(
    {
        CloudError: _INTERNAL,
        # the protocol's own
        protocol.MissingAction: Fault(400, "MissingAction"),
        protocol.InvalidAction: Fault(400, "InvalidAction"),
        protocol.UnsupportedOperation: Fault(400, "UnsupportedOperation"),
        protocol.UnknownParameter: Fault(400, "UnknownParameter"),
        protocol.MalformedQueryString: Fault(400, "MalformedQueryString"),
        protocol.RequestEntityTooLarge: Fault(413, "RequestEntityTooLarge"),
        protocol.MalformedSubnetId: Fault(400, "InvalidSubnetID.Malformed"),
        protocol.MalformedVpcId: Fault(400, "InvalidVpcID.Malformed"),
        protocol.VpcNotFound: Fault(400, "InvalidVpcID.NotFound"),
        protocol.DryRunOperation: Fault(412, "DryRunOperation"),
        # what was asked is wrong
        domain.BadRequest: Fault(400, "InvalidRequest"),
        domain.MissingParameter: Fault(400, "MissingParameter"),
        domain.InvalidParameter: Fault(400, "InvalidParameterValue"),
        domain.InvalidCombination: Fault(400, "InvalidParameterCombination"),
        domain.IdempotentParameterMismatch: Fault(400, "IdempotentParameterMismatch"),
        domain.InvalidPage: Fault(400, "InvalidNextToken"),
        domain.Malformed: Fault(400, "InvalidID"),
        domain.MalformedInstanceId: Fault(400, "InvalidInstanceID.Malformed"),
        domain.MalformedImageId: Fault(400, "InvalidAMIID.Malformed"),
        domain.InvalidPublicKey: Fault(400, "InvalidKeyPair.Format"),
        domain.InvalidUserData: Fault(400, "InvalidUserData.Malformed"),
        domain.ImageRejected: Fault(400, "InvalidParameterValue"),
        # who asks
        domain.AuthenticationFailed: Fault(401, "AuthFailure"),
        domain.SignatureDoesNotMatch: Fault(403, "SignatureDoesNotMatch"),
        domain.RequestExpired: Fault(400, "RequestExpired"),
        domain.NotAuthorized: Fault(403, "UnauthorizedOperation"),
        # what is not there
        domain.NotFound: Fault(400, "InvalidID"),  # as CreateTags says of an id that nothing has
        domain.InstanceNotFound: Fault(400, "InvalidInstanceID.NotFound"),
        domain.ImageNotFound: Fault(400, "InvalidAMIID.NotFound"),
        domain.InstanceTypeNotFound: Fault(400, "InvalidParameterValue"),  # RunInstances has no code of its own for it
        domain.KeyPairNotFound: Fault(400, "InvalidKeyPair.NotFound"),
        domain.NetworkNotFound: Fault(400, "InvalidSubnetID.NotFound"),
        domain.PlacementGroupNotFound: Fault(400, "InvalidPlacementGroup.Unknown"),
        domain.HostNotFound: Fault(400, "InvalidHostID.NotFound"),
        domain.ZoneNotFound: Fault(400, "InvalidParameterValue"),
        # what is in the way
        domain.Conflict: Fault(400, "OperationNotPermitted"),
        domain.AlreadyExists: Fault(400, "ResourceAlreadyExists"),
        domain.KeyPairExists: Fault(400, "InvalidKeyPair.Duplicate"),
        domain.PlacementGroupExists: Fault(400, "InvalidPlacementGroup.Duplicate"),
        domain.CidrOverlaps: Fault(400, "InvalidSubnet.Conflict"),
        domain.InUse: Fault(400, "DependencyViolation"),
        domain.PlacementGroupInUse: Fault(400, "InvalidPlacementGroup.InUse"),
        domain.AddressInUse: Fault(400, "InvalidIPAddress.InUse"),
        domain.IncorrectInstanceState: Fault(400, "IncorrectInstanceState"),
        domain.ImageUnavailable: Fault(400, "InvalidAMIID.Unavailable"),
        domain.TagLimitExceeded: Fault(400, "TagLimitExceeded"),
        # what there is not enough of
        domain.Exhausted: Fault(500, "InsufficientCapacity"),
        domain.QuotaExceeded: Fault(400, "InstanceLimitExceeded"),
        domain.NoValidHost: Fault(500, "InsufficientInstanceCapacity"),
        domain.NoFreeAddress: Fault(400, "InsufficientFreeAddressesInSubnet"),
        # what does not work right now
        domain.Unavailable: Fault(503, "Unavailable"),
        domain.ClaimConflict: Fault(503, "Unavailable"),
        domain.HostError: _INTERNAL,
        domain.ConfigurationError: _INTERNAL,
        domain.PoisonMessage: _INTERNAL,
    }
)


def fault_for(error: CloudError | type[CloudError]) -> Fault:
    """The fault of the nearest class that the table has."""
    cls = error if isinstance(error, type) else type(error)
    return next(FAULTS[base] for base in cls.__mro__ if base in FAULTS)


def answer_for(error: CloudError, request_id: str) -> tuple[int, bytes]:
    """The HTTP status and the document that answer an error."""
    fault = fault_for(error)
    message = "An internal error has occurred; see the log for the request id." if fault.internal else str(error)
    return fault.status, error_document(fault.code, message, request_id)
