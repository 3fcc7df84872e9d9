"""On-demand features: one function, called the same way for one row online and for a whole table offline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from lodestore.errors import DeclarationError, RequestError, nearest
from lodestore.rows import check_value
from lodestore.spec import Feature, Kind, OnDemandView
from lodestore.tables import arrow_type

__all__ = ["as_online", "as_stored", "check_inputs", "compute"]


def compute(view: OnDemandView, given: Mapping[str, Sequence[Any]], rows: int) -> dict[str, list[Any]]:
    """A column for each feature of the view, from the columns that its function takes."""
    made = [_called(view, {name: column[row] for name, column in given.items()}) for row in range(rows)]
    return {name: [one.get(name) for one in made] for name in view.features}


def as_online(feature: Feature, column: pa.ChunkedArray) -> list[Any]:
    """The values of a stored column as the online store gives them: a struct is an object, a vector an array."""
    values: list[Any] = column.to_pylist()
    if feature.kind is Kind.STRUCT:
        return [None if one is None else orjson.loads(one) for one in values]
    if feature.kind is Kind.EMBEDDING:
        return [None if one is None else np.asarray(one, dtype=np.float32) for one in values]
    return values


def as_stored(feature: Feature, values: Sequence[Any]) -> pa.Array:
    """The column of a computed feature, in the type that a history would give it; a struct is JSON text."""
    if feature.kind is Kind.STRUCT:
        values = [None if one is None else orjson.dumps(one).decode() for one in values]
    return pa.array(values, arrow_type(feature))


def check_inputs(view: OnDemandView, inputs: Mapping[str, Sequence[Any]]) -> None:
    """Every request input is there and fits what is declared; otherwise the error names the first that is not."""
    missing = [name for name in view.inputs if name not in inputs]
    if missing:
        hint = nearest(missing[0], inputs) if inputs else "; none were given"
        message = f"{view.name} needs the request input {', '.join(missing)}{hint}"
        raise RequestError(message)
    for name, feature in view.inputs.items():
        for row, value in enumerate(inputs[name], start=1):
            wrong = check_value(feature, value)
            if wrong is not None:
                message = f"{view.name}: inputs.{name}, row {row}: {wrong}"
                raise RequestError(message)


def _called(view: OnDemandView, arguments: Mapping[str, Any]) -> Mapping[str, object]:
    try:
        made: object = view.function(**arguments)
    except Exception as error:
        # Only the kind of error: its text may hold a user's values.
        message = f"on-demand view {view.name}: its function failed with {type(error).__name__}; mend the function"
        raise DeclarationError(message) from error
    if not isinstance(made, Mapping):
        message = f"on-demand view {view.name}: its function gave {type(made).__name__}; return one value per feature"
        raise DeclarationError(message)
    return made
