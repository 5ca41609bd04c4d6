"""openai-node, and the AI SDK, which calls functions by itself and decides by the status alone what to try again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import pytest
from typing_extensions import override

from tests.sessions.node import NodeClient, needs_node, node_client
from tests.sessions.session import Client, Session

pytestmark = [pytest.mark.demo, pytest.mark.node, needs_node]


@pytest.fixture(scope="class")
def node(request: pytest.FixtureRequest) -> Iterator[NodeClient]:
    """One process for all sessions of a class."""
    with node_client(request.cls.script) as opened:
        yield opened


class NodeSession(Session):
    script: ClassVar[str]

    @pytest.fixture
    @override
    def client(self, node: NodeClient) -> Client:
        return node


class TestOpenAINode(NodeSession):
    script = "openai_session.mjs"
    breaks = ("APIError", "upstream_invalid_response")


class TestAISDK(NodeSession):
    script = "ai_sdk_session.mjs"
    kinds = dict.fromkeys((400, 401, 404, 429, 502), "AI_APICallError")
    breaks = ("upstream_error", "upstream_invalid_response")
    heeds_should_retry = False
