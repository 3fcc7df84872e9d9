"""The server keeps to its own description: whatever fits it is answered as it says, whatever does not is refused."""

from __future__ import annotations

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.specs.openapi import checks as openapi

from lodestore.server.openapi import _ROUTES
from tests.served import build, serving

FEW = settings(
    max_examples=15,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
    database=None,
    derandomize=True,
)
CALLS = [(path, method.upper()) for path, method, *_ in _ROUTES]
CHECKS = [
    schemathesis.checks.not_a_server_error,
    openapi.status_code_conformance,
    openapi.content_type_conformance,
    openapi.response_headers_conformance,
    openapi.response_schema_conformance,
]


@pytest.fixture(scope="module")
def description(tmp_path_factory):
    with serving(build(tmp_path_factory.mktemp("contract"))) as (url, _):
        yield schemathesis.openapi.from_url(f"{url}/openapi.json")


@pytest.mark.parametrize(("path", "method"), CALLS)
@FEW
@given(data=st.data())
def test_what_fits_the_description_is_answered_as_it_says(description, path, method, data):
    case = data.draw(description[path][method].as_strategy(generation_mode=GenerationMode.POSITIVE))

    case.call_and_validate(checks=CHECKS)


@pytest.mark.parametrize(("path", "method"), [one for one in CALLS if one[1] == "POST"])
@FEW
@given(data=st.data())
def test_what_does_not_fit_the_description_is_refused_as_it_says(description, path, method, data):
    case = data.draw(description[path][method].as_strategy(generation_mode=GenerationMode.NEGATIVE))

    case.call_and_validate(checks=[*CHECKS, openapi.negative_data_rejection])
