import pytest

from api.ec2.faults import FAULTS, answer_for, fault_for
from api.ec2.protocol import errors as protocol
from controller.domain import errors as domain
from controller.domain.errors import CloudError, all_errors

OURS = [cls for cls in all_errors() if cls.__module__ in (domain.__name__, protocol.__name__)]
INTERNAL = {domain.HostError, domain.ConfigurationError, domain.PoisonMessage}


@pytest.mark.parametrize("cls", list(all_errors()))
def test_every_error_has_a_fault(cls: type[CloudError]) -> None:
    assert 400 <= fault_for(cls).status < 600


@pytest.mark.parametrize("cls", OURS)
def test_only_what_is_internal_is_called_so(cls: type[CloudError]) -> None:
    internal = cls is CloudError or any(base in INTERNAL for base in cls.__mro__)
    assert fault_for(cls).internal == internal
    assert (fault_for(cls).code == "InternalError") == internal


@pytest.mark.parametrize("cls", OURS)
def test_the_callers_fault_is_never_a_server_error(cls: type[CloudError]) -> None:
    if issubclass(cls, domain.BadRequest | domain.NotFound | domain.AuthenticationFailed):
        assert fault_for(cls).status < 500


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


def test_every_row_of_the_table_says_something() -> None:
    for cls in FAULTS:
        base = next(b for b in (*cls.__mro__[1:], None) if b in FAULTS or b is None)
        assert base is None or FAULTS[base] != FAULTS[cls] or FAULTS[cls].internal, f"{cls.__name__} adds nothing"


def test_the_text_of_an_internal_error_stays_inside() -> None:
    status, body = answer_for(domain.CommandFailed(program="lvcreate", status=5, stderr="/dev/secret"), "req-1")
    assert status == 500
    assert b"secret" not in body
    assert b"<RequestID>req-1</RequestID>" in body
    status, body = answer_for(domain.InstanceNotFound(id="i-1"), "req-1")
    assert status == 400
    assert b"The instance ID 'i-1' does not exist." in body
