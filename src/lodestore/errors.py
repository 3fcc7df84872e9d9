"""Every error that Lodestore raises on purpose, as one tree.

LodestoreError
|-- SettingsError(ValueError)            a setting, its value or its file
|-- DeclarationError(ValueError)         a view, a feature, an entity or a name
|-- UnknownNameError(LookupError)        something asked for by a name that nobody declared
|   |-- UnknownViewError, UnknownServiceError, UnknownFeatureError, UnknownModelError, UnknownTemplateError,
|   `-- UnknownDocumentError, UnknownReleaseError, UnknownContextError, UnknownJobError
|-- InvalidRowsError(ValueError)         rows that do not fit their view; names every one
|-- FilterError(ValueError)              a filter that does not parse or does not fit its columns
|-- TemplateError(ValueError)            a prompt template or its variables
|-- RequestError(ValueError)             a request whose parts do not make sense
|-- SourceError(ValueError)              a source of documents or events that cannot be read
|-- GoldenError(ValueError)              golden queries or judgements
|-- ModelError(ValueError)               an embedding model that cannot be used
|   |-- DimensionError                   vectors of another length
|   |-- FingerprintError                 vectors of another model
|   |-- BadVectorError                   NaN, infinite or zero vectors, or too few of them
|   `-- EndpointError(OSError)           a model behind HTTP that does not answer rightly
|-- RefusedError(RuntimeError)           an act that a rule forbids
|   |-- GateError, HeldError, BudgetError, InUseError, RetentionError
|   `-- ConflictError                    somebody else was faster
|-- StoreError(RuntimeError)             the store itself
|   |-- StoreBusyError(TimeoutError)     another process holds the writer lock
|   |-- StoreWriteError(OSError)         full, read-only or broken disk
|   |-- DamagedRowError                  a stored row that cannot be read
|   `-- SchemaVersionError               written by another version of Lodestore
`-- UnavailableError(ConnectionError)    a part that is down

A message says what happened, the value, and the way out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import ClassVar

__all__ = [
    "BadVectorError",
    "BudgetError",
    "ConflictError",
    "DamagedRowError",
    "DeclarationError",
    "DimensionError",
    "EndpointError",
    "FilterError",
    "FingerprintError",
    "GateError",
    "GoldenError",
    "HeldError",
    "InUseError",
    "InvalidRowsError",
    "LodestoreError",
    "ModelError",
    "ReadingGoneError",
    "RefusedError",
    "RequestError",
    "RetentionError",
    "SchemaVersionError",
    "SettingsError",
    "SourceError",
    "StoreBusyError",
    "StoreError",
    "StoreWriteError",
    "TemplateError",
    "UnavailableError",
    "UnknownContextError",
    "UnknownDocumentError",
    "UnknownFeatureError",
    "UnknownJobError",
    "UnknownModelError",
    "UnknownNameError",
    "UnknownReleaseError",
    "UnknownServiceError",
    "UnknownTemplateError",
    "UnknownViewError",
    "naming",
    "nearest",
]


_SHOWN = 12  # known names in one message


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint that ends a message: the nearest known name, or all of them when they are few.

    >>> nearest("minlm", ["minilm", "words"])
    "; did you mean 'minilm'?"
    >>> nearest("zzz", ["b", "a"])
    '; known: a, b'
    >>> nearest("zzz", [])
    '; none is known yet'
    """
    names = sorted(set(known))
    if not names:
        return "; none is known yet"
    close = get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    shown = ", ".join(names[:_SHOWN])
    return f"; known: {shown}" + (", ..." if len(names) > _SHOWN else "")


class LodestoreError(Exception):
    """The root: catch this to catch everything that Lodestore raises on purpose."""

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1


@contextmanager
def naming(part: str) -> Iterator[None]:
    """Whatever is raised in here on purpose names the part first, and stays the error that it is.

    >>> with naming("row 2"):
    ...     raise RequestError("the query is empty")
    Traceback (most recent call last):
    lodestore.errors.RequestError: row 2: the query is empty
    """
    try:
        yield
    except LodestoreError as error:
        error.args = (f"{part}: {error}", *error.args[1:])
        raise


class SettingsError(LodestoreError, ValueError):
    """A setting, its value or its file is wrong."""

    code = "settings"
    exit_code = 2


class DeclarationError(LodestoreError, ValueError):
    """A declared entity, feature, view or name is wrong."""

    code = "declaration"
    exit_code = 2


class UnknownNameError(LodestoreError, LookupError):
    """Nothing of that name is declared or stored."""

    code = "unknown-name"
    exit_code = 2
    kind: ClassVar[str] = "name"

    def __init__(self, name: str, known: Iterable[str] = (), *, note: str = "") -> None:
        self.name = name
        super().__init__(f"unknown {self.kind} {name!r}{nearest(name, known)}{note}")


class UnknownViewError(UnknownNameError):
    """No feature view of that name."""

    code = "unknown-view"
    kind = "feature view"


class UnknownServiceError(UnknownNameError):
    """No feature service of that name."""

    code = "unknown-service"
    kind = "feature service"


class UnknownFeatureError(UnknownNameError):
    """No feature of that name in its view."""

    code = "unknown-feature"
    kind = "feature"


class UnknownModelError(UnknownNameError):
    """No embedding model or version of that name."""

    code = "unknown-model"
    kind = "embedding model"


class UnknownTemplateError(UnknownNameError):
    """No prompt template, or no such version of it."""

    code = "unknown-template"
    kind = "prompt template"


class UnknownDocumentError(UnknownNameError):
    """No document or chunk of that id."""

    code = "unknown-document"
    kind = "document"


class UnknownReleaseError(UnknownNameError):
    """No release of that generation, or none at that time."""

    code = "unknown-release"
    kind = "release"


class UnknownContextError(UnknownNameError):
    """No logged context of that id."""

    code = "unknown-context"
    kind = "context"


class UnknownJobError(UnknownNameError):
    """No Dagster job of that name."""

    code = "unknown-job"
    kind = "job"


class InvalidRowsError(LodestoreError, ValueError):
    """Rows do not fit their view; `problems` names every one of them."""

    code = "invalid-rows"
    exit_code = 1

    def __init__(self, view: str, problems: Iterable[str]) -> None:
        self.view = view
        self.problems = tuple(problems)
        shown = "; ".join(self.problems[:20])
        more = len(self.problems) - 20
        tail = f"; and {more} more" if more > 0 else ""
        super().__init__(f"{view}: nothing was stored: {shown}{tail}")


class FilterError(LodestoreError, ValueError):
    """A filter does not parse, or names a column or a value that does not fit."""

    code = "filter"
    exit_code = 2


class TemplateError(LodestoreError, ValueError):
    """A prompt template is malformed, or was given the wrong variables."""

    code = "template"
    exit_code = 2


class RequestError(LodestoreError, ValueError):
    """A request whose parts do not make sense."""

    code = "request"
    exit_code = 2


class SourceError(LodestoreError, ValueError):
    """A source of documents or events cannot be read."""

    code = "source"
    exit_code = 2


class GoldenError(LodestoreError, ValueError):
    """Golden queries or judgements are malformed or name unknown documents."""

    code = "golden"
    exit_code = 2


class ModelError(LodestoreError, ValueError):
    """An embedding model cannot be found, loaded or used."""

    code = "model"
    exit_code = 2


class DimensionError(ModelError):
    """Vectors of another length than their table holds."""

    code = "dimension"


class FingerprintError(ModelError):
    """Vectors, or a running model, of another identity than the registered one."""

    code = "fingerprint"


class BadVectorError(ModelError):
    """A model gave NaN, infinite or zero vectors, or another number of them than texts."""

    code = "bad-vector"


class EndpointError(ModelError, OSError):
    """A model behind HTTP refused, timed out or answered in another form."""

    code = "endpoint"
    exit_code = 1


class RefusedError(LodestoreError, RuntimeError):
    """A rule forbids this; nothing was changed."""

    code = "refused"


class GateError(RefusedError):
    """The gate did not let a version through."""

    code = "gate"


class HeldError(RefusedError):
    """A version is held: it was rolled back or refused, and stays so until somebody decides."""

    code = "held"


class BudgetError(RefusedError):
    """The work would cost more than the budget allows."""

    code = "budget"


class InUseError(RefusedError):
    """What should be dropped is live, or is where a rollback would go."""

    code = "in-use"


class RetentionError(RefusedError):
    """The question reaches further back than what is kept."""

    code = "retention"


class ConflictError(RefusedError):
    """Somebody else changed the same thing first."""

    code = "conflict"


class StoreError(LodestoreError, RuntimeError):
    """The store cannot be opened or used."""

    code = "store"


class ReadingGoneError(StoreError):
    """The files of a table's version that is being read were taken away; the table has to be opened anew."""

    code = "reading-gone"


class StoreBusyError(StoreError, TimeoutError):
    """Another process is writing."""

    code = "store-busy"


class StoreWriteError(StoreError, OSError):
    """The disk is full, read-only or broken."""

    code = "store-write"


class DamagedRowError(StoreError):
    """A stored row cannot be read; the store answers, and other rows can."""

    code = "damaged-row"


class SchemaVersionError(StoreError):
    """The store was written by another version of Lodestore."""

    code = "schema-version"


class UnavailableError(LodestoreError, ConnectionError):
    """A part that is needed for the answer is down."""

    code = "unavailable"
