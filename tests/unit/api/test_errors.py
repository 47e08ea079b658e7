"""The table of errors as a whole: no row and no cell is missing, and the doors agree on whose fault an error is."""

import re
from dataclasses import astuple, fields

import pytest

import api.app  # noqa: F401 - so that every error of the doors is known
from api.ec2.faults import PROTOCOL_FAULTS, fault_for
from api.errors import ERRORS, INTERNAL, ErrorRow, OneCode, row_for
from api.rest.problem import PROTOCOL_STATUS, status_of
from controller.domain import errors as domain
from controller.domain.errors import CloudError, all_errors

OF_THE_DOMAIN = [cls for cls in all_errors() if cls.__module__ == domain.__name__]
OF_THE_DOORS = [cls for cls in all_errors() if cls.__module__.startswith("api.")]
OF_THE_HOST = domain.HostError | domain.ConfigurationError | domain.PoisonMessage


def test_every_error_of_the_domain_has_a_row_of_its_own() -> None:
    assert set(ERRORS) == set(OF_THE_DOMAIN)


@pytest.mark.parametrize("cls", OF_THE_DOMAIN)
def test_no_cell_is_missing(cls: type[CloudError]) -> None:
    row = ERRORS[cls]
    assert [f.name for f in fields(ErrorRow)] == ["ec2", "opennebula", "rest", "internal"]
    assert None not in astuple(row)
    assert 400 <= row.ec2.status < 600
    assert re.fullmatch(r"[A-Z][A-Za-z]+(\.[A-Z][A-Za-z]+)?", row.ec2.code)
    assert isinstance(row.opennebula, OneCode)
    assert 400 <= row.rest < 600


def test_problem_types_are_unique() -> None:
    codes = [cls.code for cls in all_errors() if cls.__module__.startswith(("api.", "controller."))]
    assert len(codes) == len(set(codes))
    assert all(re.fullmatch(r"[a-z0-9_]+(\.[a-z0-9_]+)?", code) for code in codes)


@pytest.mark.parametrize("cls", OF_THE_DOMAIN)
def test_internal_errors_are_internal_at_every_door(cls: type[CloudError]) -> None:
    is_internal = cls is CloudError or issubclass(cls, OF_THE_HOST)
    row = ERRORS[cls]
    assert (row is INTERNAL) == row.internal == is_internal
    assert (row.ec2.code == "InternalError") == (row.rest == 500) == is_internal


@pytest.mark.parametrize("cls", OF_THE_DOMAIN)
def test_the_callers_fault_is_never_a_server_error(cls: type[CloudError]) -> None:
    if issubclass(cls, domain.BadRequest | domain.NotFound | domain.AuthenticationFailed | domain.Conflict):
        assert ERRORS[cls].ec2.status < 500
        assert ERRORS[cls].rest < 500
        assert ERRORS[cls].opennebula is not OneCode.INTERNAL


@pytest.mark.parametrize("cls", OF_THE_DOORS)
def test_errors_of_a_door_are_in_its_table_or_as_their_base(cls: type[CloudError]) -> None:
    if cls.__module__.startswith("api.ec2"):
        assert fault_for(cls).status < 500
    else:
        assert cls in PROTOCOL_STATUS or issubclass(cls, domain.BadRequest)
    assert row_for(cls) in ERRORS.values()


def test_tables_of_the_doors_have_no_error_of_the_domain() -> None:
    assert not (PROTOCOL_FAULTS.keys() | PROTOCOL_STATUS.keys()) & ERRORS.keys()


def test_an_error_without_a_row_is_answered_as_its_base() -> None:
    class NewerError(domain.QuotaExceeded):
        code = "test.newer"
        message = "x"

    assert row_for(NewerError) is ERRORS[domain.QuotaExceeded]
    assert fault_for(NewerError()) == ERRORS[domain.QuotaExceeded].ec2
    assert status_of(NewerError()) == 403
