"""Pages of lists that are short enough to be read whole, and filters whose value is the same for every item."""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from api.ec2.actions.context import Context, Parameters
from api.ec2.protocol.filters import ValuesOf
from api.ec2.protocol.paging import MAX_RESULTS, encode_token, page_size, position_of

Item = TypeVar("Item")


def page_of(
    context: Context,
    params: Parameters,
    items: Iterable[Item],
    key: Callable[[Item], str],
    *,
    ids: str | None = None,
    maximum: int = MAX_RESULTS,
) -> tuple[list[Item], str | None]:
    """The page that a call asks for, in the order of ``key``, and the token of the next one.

    A key is unique and never changes, so what comes and goes between two pages moves nothing else.

    Raises:
        InvalidPage, InvalidParameter, InvalidCombination: see ``page_size`` and ``position_of``.
    """
    size = page_size(params, ids=ids, maximum=maximum)
    after = position_of(context.action, params)
    ordered = sorted((i for i in items if after is None or key(i) > after), key=key)
    if size is None or len(ordered) <= size:
        return ordered, None
    shown = ordered[:size]
    return shown, encode_token(context.action, params, key(shown[-1]))


def fixed(*values: str) -> ValuesOf[Any]:
    """The values of a filter that are the same, or none, for every item."""
    return lambda _: values
