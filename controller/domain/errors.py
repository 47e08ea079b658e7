"""Everything that can go wrong, by a public and permanent code.

An error is raised where it is known and translated once, at a door; ``api/errors.py`` has what each door answers.
Each class names the fields of its message; a missing field is a programming error, found by the tests.
"""

from collections.abc import Iterator
from typing import Any, ClassVar


class CloudError(Exception):
    """What every error of the domain is.

    ``code`` is public and never changes; ``message`` is a format string over the keyword arguments.
    ``retriable`` says that the same request may succeed later without any change.
    """

    code: ClassVar[str] = "internal"
    message: ClassVar[str] = "Internal error."
    retriable: ClassVar[bool] = False

    def __init__(self, **fields: Any) -> None:
        self.fields = fields
        super().__init__(self.message.format(**fields))


def all_errors(base: type[CloudError] = CloudError) -> Iterator[type[CloudError]]:
    """Every error class, the base first."""
    yield base
    for sub in base.__subclasses__():
        yield from all_errors(sub)


# --- what was asked is wrong -----------------------------------------------------------------------------


class BadRequest(CloudError):
    """The caller's fault: the same request will never succeed."""

    code = "request.bad"
    message = "Bad request."


class MissingParameter(BadRequest):
    code = "request.missing_parameter"
    message = "The request must contain the parameter {parameter}."


class InvalidParameter(BadRequest):
    code = "request.invalid_parameter"
    message = "Value ({value}) for parameter {parameter} is invalid: {reason}."


class InvalidCombination(BadRequest):
    code = "request.invalid_combination"
    message = "{reason}."


class IdempotentParameterMismatch(BadRequest):
    code = "request.token_mismatch"
    message = "The client token {token} was already used with different parameters."


class InvalidPage(BadRequest):
    code = "request.invalid_page"
    message = "The page token is not one that this service gave out, or belongs to another request."


class Malformed(BadRequest):
    """An identifier that cannot be one."""

    code = "request.malformed_id"
    message = "Invalid {kind} id: '{id}' (expecting '{expected}')."


class MalformedInstanceId(Malformed):
    code = "instance.malformed_id"


class MalformedImageId(Malformed):
    code = "image.malformed_id"


class InvalidPublicKey(BadRequest):
    code = "keypair.invalid"
    message = "The public key is not valid: {reason}."


class InvalidUserData(BadRequest):
    code = "instance.invalid_user_data"
    message = "User data is not valid: {reason}."


class LeasesRefused(BadRequest):
    """``rows`` has the first bad ones, each with its line and reason."""

    code = "network.leases_refused"
    message = "Nothing was imported, for {count} rows are bad; the first one is {first}."


# --- who asks --------------------------------------------------------------------------------------------


class AuthenticationFailed(CloudError):
    code = "auth.failed"
    message = "The request could not be authenticated: {reason}."


class SignatureDoesNotMatch(AuthenticationFailed):
    code = "auth.signature"
    message = "The request signature does not match the signature that was calculated: {reason}."


class RequestExpired(AuthenticationFailed):
    code = "auth.expired"
    message = "The request is not within its clock window: {reason}."


class NotAuthorized(CloudError):
    code = "auth.forbidden"
    message = "You are not authorized to {action}."


# --- what is not there -----------------------------------------------------------------------------------


class NotFound(CloudError):
    code = "not_found"
    message = "The {kind} '{id}' does not exist."


class InstanceNotFound(NotFound):
    code = "instance.not_found"
    message = "The instance ID '{id}' does not exist."


class ImageNotFound(NotFound):
    code = "image.not_found"
    message = "The image id '{id}' does not exist."


class InstanceTypeNotFound(NotFound):
    code = "instance_type.not_found"
    message = "The instance type '{id}' does not exist."


class KeyPairNotFound(NotFound):
    code = "keypair.not_found"
    message = "The key pair '{id}' does not exist."


class NetworkNotFound(NotFound):
    code = "network.not_found"
    message = "The network '{id}' does not exist."


class PlacementGroupNotFound(NotFound):
    code = "placement_group.not_found"
    message = "The placement group '{id}' does not exist."


class ProjectNotFound(NotFound):
    code = "project.not_found"
    message = "The project '{id}' does not exist."


class UserNotFound(NotFound):
    code = "user.not_found"
    message = "The user '{id}' does not exist."


class HostNotFound(NotFound):
    code = "host.not_found"
    message = "The host '{id}' does not exist."


class HostRemoved(HostNotFound):
    code = "host.removed"
    message = "The host '{id}' was removed at {at}; if it is dead, `pileus host fence {id}` frees its addresses."


class ZoneNotFound(NotFound):
    code = "zone.not_found"
    message = "The availability zone '{id}' does not exist."


# --- what is in the way ----------------------------------------------------------------------------------


class Conflict(CloudError):
    code = "conflict"
    message = "{reason}."


class AlreadyExists(Conflict):
    code = "already_exists"
    message = "The {kind} '{id}' already exists."


class KeyPairExists(AlreadyExists):
    code = "keypair.exists"
    message = "The key pair '{id}' already exists."


class PlacementGroupExists(AlreadyExists):
    code = "placement_group.exists"


class CidrOverlaps(Conflict):
    code = "network.cidr_overlaps"
    message = "The CIDR {cidr} overlaps {other} of network '{network}': choose a free range."


class InUse(Conflict):
    code = "in_use"
    message = "The {kind} '{id}' is in use by {user}."


class HostInUse(InUse):
    code = "host.in_use"
    message = "The host '{id}' is in use by {user}: {advice}."


class PlacementGroupInUse(InUse):
    code = "placement_group.in_use"


class AddressInUse(InUse):
    code = "network.address_in_use"
    message = "The address {id} is in use by {user}."


class IncorrectInstanceState(Conflict):
    """The transition table has no row for this state and event."""

    code = "instance.incorrect_state"
    message = "An instance that is {state} does not allow {event}."


class ImageUnavailable(Conflict):
    code = "image.unavailable"
    message = "The image '{id}' cannot be used: it is {state}."


class ImageRejected(BadRequest):
    code = "image.rejected"
    message = "The image file is refused: {reason}."


class TagLimitExceeded(Conflict):
    code = "tag.limit"
    message = "A resource can have {limit} tags at most; '{id}' would have {asked}."


# --- what there is not enough of -------------------------------------------------------------------------


class Exhausted(CloudError):
    """Not enough of something; the counts say of what."""

    code = "exhausted"
    message = "Not enough {kind}."
    retriable = True


class QuotaExceeded(Exhausted):
    code = "quota.exceeded"
    message = (
        "The quota of project {project} for {resource} is {limit}; {used} are used and {asked} more were asked for."
    )


class NoValidHost(Exhausted):
    code = "placement.no_valid_host"
    message = "No host can run {count} more of {vcpus} vCPU / {memory_mib} MiB / {disk_gib} GiB: {rejected}."


class NoFreeAddress(Exhausted):
    code = "network.no_free_address"
    message = "Network '{network}' ({cidr}) has {free} free addresses; {asked} were asked for."


class NoFreeVlan(Exhausted):
    code = "network.no_free_vlan"
    message = "Every VLAN id of the range {first}-{last} on '{physical_network}' is taken."


# --- what does not work right now ------------------------------------------------------------------------


class Unavailable(CloudError):
    code = "unavailable"
    message = "{what} is not available right now: {reason}."
    retriable = True


class BusUnavailable(Unavailable):
    code = "bus.unavailable"


class DatabaseUnavailable(Unavailable):
    code = "database.unavailable"


class AgentTimeout(Unavailable):
    code = "agent.timeout"
    message = "The agent of host '{host}' did not answer within {timeout_s} s."


class AgentAway(Unavailable):
    code = "agent.away"
    message = "The agent of host '{host}' is not connected to the message bus."


class ClaimConflict(CloudError):
    """Another transaction took it first; the operation is to be tried again on a new snapshot."""

    code = "claim.conflict"
    message = "Another transaction took the {kind} '{id}' first; try again."
    retriable = True


class HostError(CloudError):
    """Work on a host went wrong; everything half-made has been removed again."""

    code = "host.error"
    message = "{what} failed on this host: {reason}."


class DriverError(HostError):
    code = "host.driver"


class DiskError(HostError):
    code = "host.disk"


class ImageFetchError(HostError):
    code = "host.image_fetch"
    message = "Image {image} could not be fetched: {reason}."


class CommandFailed(HostError):
    code = "host.command"
    message = "{program} ended with status {status}: {stderr}."


class ConfigurationError(CloudError):
    code = "configuration"
    message = "Configuration: {reason}."


class PoisonMessage(CloudError):
    """A message that no handler can ever read; it goes to the dead letters."""

    code = "bus.poison"
    message = "Message refused: {reason}."


class NewerMessage(PoisonMessage):
    """A message of a kind that only a newer release knows."""

    code = "bus.newer"
    message = (
        "A newer release sent {kind} (messages of version {version}, this release {release} reads version {speaks}): "
        "nothing was done; replay it once all services are of that release."
    )
