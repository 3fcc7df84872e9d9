"""Data frames, and whatever else has Arrow columns, as rows are taken from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lodestore.errors import RequestError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["is_columnar", "offered"]


def is_columnar(rows: object) -> bool:
    """Whether these are a data frame, an Arrow table or their like, and not rows one by one."""
    return hasattr(rows, "__arrow_c_stream__")


def offered(what: str, rows: Any) -> pa.Table | list[dict[str, Any]]:  # noqa: ANN401 - a table or data frame of any library
    """The columns as an Arrow table, without a data frame's index; rows where cells of a data frame are objects.

    Arrow would give each of these objects the keys of all of them. Columns that Arrow has no one type for are a
    `RequestError`.
    """
    import pyarrow as pa

    try:
        if type(rows).__name__ == "DataFrame" and hasattr(rows, "iloc"):
            if any(_has_objects(rows.iloc[:, place]) for place in range(rows.shape[1])):
                return list(rows.to_dict("records"))
            return pa.Table.from_pandas(rows, preserve_index=False)
        return rows if isinstance(rows, pa.Table) else pa.table(rows)
    except (pa.ArrowException, ArithmeticError, LookupError, TypeError, ValueError) as error:
        message = f"{what}: the rows cannot be an Arrow table: {error}; give each column values of one type"
        raise RequestError(message) from error


def _has_objects(column: Any) -> bool:  # noqa: ANN401 - a column of a data frame
    return column.dtype == object and any(isinstance(one, Mapping) for one in column)
