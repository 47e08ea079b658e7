"""Errors of the EC2 protocol alone: what is wrong with a request before an operation is called.

The codes are those of https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html.
"""

from controller.domain.errors import BadRequest, CloudError, Malformed, NetworkNotFound, NotFound


class MissingAction(BadRequest):
    code = "ec2.missing_action"
    message = "The request must contain the parameter Action."


class InvalidAction(BadRequest):
    """EC2 has no such action."""

    code = "ec2.invalid_action"
    message = "The action {action} is not valid for this web service."


class UnsupportedOperation(BadRequest):
    """EC2 has such an action, this cloud has not."""

    code = "ec2.unsupported_operation"
    message = "The action {action} is not offered by this cloud."


class UnknownParameter(BadRequest):
    code = "ec2.unknown_parameter"
    message = "The parameter {parameter} is not recognized."


class MalformedQueryString(BadRequest):
    code = "ec2.malformed_query"
    message = "The query string or the form is malformed: {reason}."


class RequestEntityTooLarge(BadRequest):
    code = "ec2.too_large"
    message = "The request is too large: {reason}."


class MalformedSubnetId(Malformed):
    code = "ec2.malformed_subnet_id"


class MalformedVpcId(Malformed):
    code = "ec2.malformed_vpc_id"


class SubnetNotFound(NetworkNotFound):
    """A network, by the name that EC2 has for it."""

    code = "ec2.subnet_not_found"
    message = "The subnet ID '{id}' does not exist."


class VpcNotFound(NotFound):
    code = "ec2.vpc_not_found"
    message = "The vpc ID '{id}' does not exist."


class DryRunOperation(CloudError):
    """Not a failure: everything was checked, and nothing was done because the caller set DryRun."""

    code = "ec2.dry_run"
    message = "Request would have succeeded, but DryRun flag is set."
