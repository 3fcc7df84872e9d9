"""Problem documents (RFC 9457): every error of the server in one shape, with a stable `type`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from lodestore import errors
from lodestore.errors import InvalidRowsError, LodestoreError

__all__ = ["BUG", "URN", "HttpError", "Problem", "problem_of"]

URN = "urn:lodestore:error:"
_LONGEST = 4_000
_BUG_TEXT = "a fault of the server; its log has the details under this request id"

# The nearest class of an error decides its status.
_STATUS: Mapping[type[BaseException], int] = MappingProxyType(
    {
        LodestoreError: 500,
        errors.SettingsError: 500,
        errors.DeclarationError: 422,
        errors.UnknownNameError: 404,
        errors.InvalidRowsError: 422,
        errors.FilterError: 422,
        errors.TemplateError: 422,
        errors.RequestError: 422,
        errors.SourceError: 422,
        errors.GoldenError: 422,
        errors.ModelError: 503,
        errors.DimensionError: 422,
        errors.FingerprintError: 409,
        errors.BadVectorError: 422,
        errors.RefusedError: 409,
        errors.StoreError: 503,
        errors.UnavailableError: 503,
    }
)
_UNAVAILABLE = 503


class HttpError(Exception):
    """A refusal that only HTTP knows: a missing key, a body that is too large, too many requests at once."""

    def __init__(self, status: int, code: str, message: str, **headers: str) -> None:
        self.status = status
        self.code = code
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Problem:
    """One error as it goes over the wire."""

    status: int
    code: str
    detail: str
    headers: Mapping[str, str] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self, request_id: str) -> dict[str, Any]:
        """The problem document."""
        title = self.code.replace("-", " ").capitalize()
        told = {"type": URN + self.code, "title": title, "status": self.status, "detail": self.detail[:_LONGEST]}
        return {**told, "request_id": request_id, **self.more}


BUG = Problem(500, "internal", _BUG_TEXT)


def problem_of(error: LodestoreError | HttpError) -> Problem:
    """What the caller is told about the error."""
    if isinstance(error, HttpError):
        return Problem(error.status, error.code, str(error), error.headers)
    status = next(_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS)
    headers = {"retry-after": "1"} if status == _UNAVAILABLE else {}
    more = {"problems": list(error.problems)} if isinstance(error, InvalidRowsError) else {}
    return Problem(status, error.code, str(error), headers, more)
