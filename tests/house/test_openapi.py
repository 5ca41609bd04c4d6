"""The checked-in OpenAPI document is the one that the code serves."""

from __future__ import annotations

from app.main import openapi_document
from tests.house.files import ROOT


def test_the_checked_in_document_is_what_the_code_says() -> None:
    assert (ROOT / "openapi" / "modelport.json").read_bytes() == openapi_document(), "run make openapi"
