"""What EC2's clients test for; the table as a whole is tested in ``tests/unit/api/test_errors.py``."""

import pytest

from api.ec2.faults import answer_for, fault_for
from api.ec2.protocol import errors as protocol
from controller.domain import errors as domain
from controller.domain.errors import CloudError


@pytest.mark.parametrize(
    ("cls", "status", "code"),
    [
        (domain.InstanceNotFound, 400, "InvalidInstanceID.NotFound"),
        (domain.MalformedInstanceId, 400, "InvalidInstanceID.Malformed"),
        (domain.ImageNotFound, 400, "InvalidAMIID.NotFound"),
        (domain.AuthenticationFailed, 401, "AuthFailure"),
        (domain.SignatureDoesNotMatch, 403, "SignatureDoesNotMatch"),
        (domain.RequestExpired, 400, "RequestExpired"),
        (domain.NotAuthorized, 403, "UnauthorizedOperation"),
        (domain.QuotaExceeded, 400, "InstanceLimitExceeded"),
        (domain.NoValidHost, 500, "InsufficientInstanceCapacity"),
        (domain.NoFreeAddress, 400, "InsufficientFreeAddressesInSubnet"),
        (domain.BusUnavailable, 503, "Unavailable"),
        (protocol.DryRunOperation, 412, "DryRunOperation"),
        (protocol.InvalidAction, 400, "InvalidAction"),
        (CloudError, 500, "InternalError"),
    ],
)
def test_codes_that_clients_test_for(cls: type[CloudError], status: int, code: str) -> None:
    assert (fault_for(cls).status, fault_for(cls).code) == (status, code)


@pytest.mark.parametrize("name", ["key_name", "address", "private-ip-address"])
def test_unknown_parameter_is_named_as_the_client_wrote_it(name: str) -> None:
    _, body = answer_for(protocol.UnknownParameter(parameter=name), "req-1")
    assert f"The parameter {name} is not recognized".encode() in body


def test_the_text_of_an_internal_error_stays_inside() -> None:
    status, body = answer_for(domain.CommandFailed(program="lvcreate", status=5, stderr="/dev/secret"), "req-1")
    assert status == 500
    assert b"secret" not in body
    assert b"<RequestID>req-1</RequestID>" in body
    status, body = answer_for(domain.InstanceNotFound(id="i-1"), "req-1")
    assert status == 400
    assert b"The instance ID 'i-1' does not exist." in body
