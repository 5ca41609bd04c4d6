"""openai-node."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from typing_extensions import override

from tests.sessions.node import NodeClient, needs_node, node_client
from tests.sessions.session import Client, Session
from tests.sessions.test_openai import KINDS

pytestmark = [pytest.mark.demo, pytest.mark.node, needs_node]


@pytest.fixture(scope="module")
def node() -> Iterator[NodeClient]:
    with node_client("openai_session.mjs") as opened:
        yield opened


class TestOpenAINode(Session):
    kinds = KINDS
    breaks = ("APIError", "upstream_invalid_response")

    @pytest.fixture
    @override
    def client(self, node: NodeClient) -> Client:
        return node
