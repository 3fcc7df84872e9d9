"""What the server logs: one line of JSON each, for people and for machines."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

import orjson

from lodestore.wire import rfc3339

__all__ = ["LOGGING", "JsonLines", "speak"]

LOGGING: Mapping[str, Any] = MappingProxyType(
    {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"lines": {"()": "lodestore.server.lines.JsonLines"}},
        "handlers": {"lines": {"class": "logging.StreamHandler", "formatter": "lines", "stream": "ext://sys.stderr"}},
        "loggers": {"uvicorn": {"handlers": ["lines"], "level": "INFO", "propagate": False}},
    }
)
"""What uvicorn itself says, in such lines too; as `logging.config` wants it."""


class JsonLines(logging.Formatter):
    """A record as one JSON object; what the server tells of a request stands in it by name."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        at = rfc3339(datetime.fromtimestamp(record.created, UTC))
        told = {"at": at, "level": record.levelname.lower(), "logger": record.name}
        request = getattr(record, "request", None)
        told |= {"message": record.getMessage()} if request is None else request
        if record.exc_info:
            told["error"] = self.formatException(record.exc_info)
        try:
            return orjson.dumps(told, default=str).decode()
        except TypeError:  # a file name that is not UTF-8, half a surrogate pair
            return json.dumps(told, default=str)


def speak() -> None:
    """Lodestore's own loggers write such lines to standard error, from `info` on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    own = logging.getLogger("lodestore")
    own.handlers = [handler]
    own.setLevel(logging.INFO)
    own.propagate = False
