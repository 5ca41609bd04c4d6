"""The hand-kept OpenAPI fragment says the same as the dispatch table and the status table."""

from __future__ import annotations

from openapi_spec_validator import OpenAPIV31SpecValidator

from app.kit import json
from app.kit.error_body import _STATUS_CODES
from app.main import openapi_document
from app.proxy.endpoints import METHODS, MODELS, method_of
from app.proxy.openapi import fragment


def test_every_operation_of_the_dispatch_table_is_documented_and_no_other() -> None:
    documented = {path: set(operations) for path, operations in fragment()["paths"].items()}
    assert documented == {
        **{path: {method.lower()} for path, method in METHODS.items()},
        f"{MODELS}/{{id}}": {"get"},
    }
    assert method_of(f"{MODELS}/a/b") == "GET"
    assert method_of(f"{MODELS}/") is None


def test_every_error_that_a_call_can_end_with_is_documented() -> None:
    """All statuses we have, without those of the control plane's verbs and of other methods."""
    control_plane_only = {409, 412}
    ours = {status_code for _, status_code, _ in _STATUS_CODES} - control_plane_only - {405}
    responses = fragment()["paths"]["/v1/chat/completions"]["post"]["responses"]
    assert {int(status_code) for status_code in responses} == ours | {200}


def test_the_document_of_both_planes_is_valid() -> None:
    document = json.loads(openapi_document())
    OpenAPIV31SpecValidator(document).validate()
    assert fragment()["paths"].keys() <= document["paths"].keys()
