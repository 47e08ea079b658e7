"""Errors in EC2's format: those of the domain by the table of all doors, those of the protocol by the one here.

The codes are public and permanent; https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html.
"""

from collections.abc import Mapping
from types import MappingProxyType

from api.ec2.parameters import message_of
from api.ec2.protocol import errors as protocol
from api.ec2.protocol.response import error_document
from api.errors import Ec2Fault, row_for
from controller.domain.errors import CloudError

PROTOCOL_FAULTS: Mapping[type[CloudError], Ec2Fault] = MappingProxyType(
    {
        protocol.MissingAction: Ec2Fault(400, "MissingAction"),
        protocol.InvalidAction: Ec2Fault(400, "InvalidAction"),
        protocol.UnsupportedOperation: Ec2Fault(400, "UnsupportedOperation"),
        protocol.UnknownParameter: Ec2Fault(400, "UnknownParameter"),
        protocol.MalformedQueryString: Ec2Fault(400, "MalformedQueryString"),
        protocol.RequestEntityTooLarge: Ec2Fault(413, "RequestEntityTooLarge"),
        protocol.MalformedSubnetId: Ec2Fault(400, "InvalidSubnetID.Malformed"),
        protocol.MalformedVpcId: Ec2Fault(400, "InvalidVpcID.Malformed"),
        protocol.VpcNotFound: Ec2Fault(400, "InvalidVpcID.NotFound"),
        protocol.DryRunOperation: Ec2Fault(412, "DryRunOperation"),
    }
)


def fault_for(error: CloudError | type[CloudError]) -> Ec2Fault:
    """The status and the code of an error."""
    cls = error if isinstance(error, type) else type(error)
    own = (PROTOCOL_FAULTS[base] for base in cls.__mro__ if base in PROTOCOL_FAULTS)
    return next(own, None) or row_for(cls).ec2


def answer_for(error: CloudError, request_id: str) -> tuple[int, bytes]:
    """The HTTP status and the document that answer an error."""
    fault = fault_for(error)
    if type(error) in PROTOCOL_FAULTS:
        message = str(error)  # its parameter is the client's own text
    elif row_for(error).internal:
        message = "An internal error has occurred; see the log for the request id."
    else:
        message = message_of(error)
    return fault.status, error_document(fault.code, message, request_id)
