"""The AI SDK, which calls functions by itself and decides by the status alone what to try again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from typing_extensions import override

from tests.sessions.node import NodeClient, needs_node, node_client
from tests.sessions.session import Client, Session

pytestmark = [pytest.mark.demo, pytest.mark.node, needs_node]

KINDS: dict[int | str, str] = dict.fromkeys((400, 401, 404, 429, 502), "AI_APICallError")


@pytest.fixture(scope="module")
def node() -> Iterator[NodeClient]:
    with node_client("ai_sdk_session.mjs") as opened:
        yield opened


class TestAISDK(Session):
    kinds = KINDS
    breaks = ("upstream_error", "upstream_invalid_response")
    heeds_should_retry = False

    @pytest.fixture
    @override
    def client(self, node: NodeClient) -> Client:
        return node
