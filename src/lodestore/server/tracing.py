"""One OpenTelemetry span for each request: names, numbers and the request id, no value of a request.

Needs the extra `lodestore[otel]`. Where spans go is said by the usual variables of OpenTelemetry, such as
OTEL_EXPORTER_OTLP_ENDPOINT and OTEL_SERVICE_NAME.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lodestore.errors import SettingsError

if TYPE_CHECKING:
    from opentelemetry.trace import Span, TracerProvider

    from lodestore.server.endpoint import Answer, Call

__all__ = ["Tracing"]

_FAULT = 500


class Tracing:
    """Makes spans with a provider; a request that says which trace it belongs to becomes part of it."""

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._tracer = provider.get_tracer("lodestore")
        self._caller = TraceContextTextMapPropagator()
        self._kind = SpanKind.SERVER

    @classmethod
    def exporting(cls) -> Tracing:
        """Spans go to the collector that the environment names, in batches, from a thread of their own."""
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ModuleNotFoundError as error:
            message = f'serve.tracing needs OpenTelemetry ({error}); run: pip install "lodestore[otel]"'
            raise SettingsError(message) from error
        # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES go before this name.
        provider = TracerProvider(resource=Resource.create({"service.name": "lodestore"} | _named()))
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        return cls(provider)

    @contextmanager
    def request(self, route: str, method: str, headers: Mapping[bytes, bytes]) -> Iterator[Span]:
        """A span of the request, ended when the answer is sent."""
        carrier = {name: headers[name.encode()].decode("latin-1") for name in _TRACE if name.encode() in headers}
        attributes = {"http.request.method": method, "http.route": route}
        with self._tracer.start_as_current_span(
            f"{method} {route}",
            context=self._caller.extract(carrier),
            kind=self._kind,
            attributes=attributes,
            record_exception=False,  # a message may quote what was sent
        ) as span:
            yield span

    @staticmethod
    def answered(span: Span, call: Call, answer: Answer) -> None:
        """The span says what the answer was."""
        from opentelemetry.trace import StatusCode

        release = call.live.release.generation if call.live is not None else 0
        told: dict[str, str | int] = {"http.response.status_code": answer.status, "lodestore.release": release}
        told |= {"lodestore.request_id": call.request_id, "lodestore.cache": answer.cache.decode()}
        told |= {"lodestore.view": call.view} if call.view else {}
        span.set_attributes(told)
        if answer.status >= _FAULT:
            span.set_status(StatusCode.ERROR)


_TRACE = ("traceparent", "tracestate")


def _named() -> dict[str, str]:
    name = os.environ.get("OTEL_SERVICE_NAME")
    return {"service.name": name} if name else {}
