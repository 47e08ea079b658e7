"""Moments as EC2 clients write them, and as EC2 answers them."""

from datetime import UTC, datetime


def parse_moment(text: str) -> datetime:
    """A moment in UTC from ISO 8601, extended or basic; one without an offset is meant in UTC.

    Raises:
        ValueError: it is not such a text, or lies outside of the years 1 to 9999.
    """
    if not text.isascii():
        raise ValueError(f"not an ISO 8601 moment: {text!r}")
    moment = datetime.fromisoformat(text.strip())
    if moment.tzinfo is None:
        return moment.replace(tzinfo=UTC)
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError(f"out of range: {text!r}") from error


def format_moment(moment: datetime) -> str:
    """As EC2 writes it: ``2026-01-02T03:04:05.000Z``.

    Raises:
        TypeError: the moment has no time zone.
    """
    if moment.tzinfo is not UTC:
        if moment.tzinfo is None:
            raise TypeError(f"a moment without a time zone: {moment!r}")
        moment = moment.astimezone(UTC)
    return f"{moment.isoformat(timespec='milliseconds')[:-6]}Z"
