"""What calls are kept together by."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.domain.route import Affinity
from app.proxy.affinity import key_of
from app.proxy.request import parse_request
from tests.unit.test_directory import route

SYSTEM = {"role": "system", "content": "You are a parrot."}
QUESTION = {"role": "user", "content": "Who are you?"}
ANSWER = {"role": "assistant", "content": "Who are you?"}


def key(affinity: Affinity, tenant_id: str = "t1", **members: Any) -> int | None:
    body = json.dumps({"model": "m", **members}).encode()
    return key_of(parse_request(body), route(affinity=affinity), tenant_id)


@pytest.mark.parametrize("affinity", [Affinity.USER, Affinity.PROMPT_CACHE_KEY])
def test_a_member_keeps_the_calls_of_one_tenant_together(affinity: Affinity) -> None:
    name = affinity.value
    assert key(affinity, **{name: "a"}) == key(affinity, **{name: "a", "messages": [QUESTION]})
    assert key(affinity, **{name: "a"}) != key(affinity, **{name: "b"})
    assert key(affinity, **{name: "a"}) != key(affinity, tenant_id="t2", **{name: "a"})


@pytest.mark.parametrize("value", [None, "", 7, ["a"], {"a": 1}])
def test_what_is_no_text_is_no_key(value: Any) -> None:
    assert key(Affinity.USER, user=value) is None


@pytest.mark.parametrize("affinity", list(Affinity))
def test_a_call_that_has_nothing_of_the_kind_has_no_key(affinity: Affinity) -> None:
    assert key(affinity) is None


def test_without_affinity_there_is_no_key() -> None:
    assert key(Affinity.NONE, user="a", prompt_cache_key="a", messages=[QUESTION]) is None


@pytest.mark.parametrize("name", ["messages", "input"])
def test_a_conversation_keeps_its_prefix_when_it_goes_on(name: str) -> None:
    first = key(Affinity.PREFIX, **{name: [SYSTEM, QUESTION]})
    assert first == key(Affinity.PREFIX, **{name: [SYSTEM, QUESTION, ANSWER, {"role": "user", "content": "No."}]})
    assert first != key(Affinity.PREFIX, **{name: [SYSTEM, {"role": "user", "content": "Another."}]})
    assert first != key(Affinity.PREFIX, **{name: [QUESTION]})
    assert first == key(Affinity.PREFIX, tenant_id="t2", **{name: [SYSTEM, QUESTION]}), "a cache knows no tenants"


@pytest.mark.parametrize("name", ["system", "instructions"])
def test_what_stands_beside_the_messages_belongs_to_the_prefix(name: str) -> None:
    assert key(Affinity.PREFIX, messages=[QUESTION]) != key(Affinity.PREFIX, messages=[QUESTION], **{name: "Be kind."})


def test_the_prefix_of_a_text_is_its_beginning() -> None:
    long = "x" * 5000
    assert key(Affinity.PREFIX, prompt=long) == key(Affinity.PREFIX, prompt=long + "y")
    assert key(Affinity.PREFIX, prompt=long) != key(Affinity.PREFIX, prompt="y" + long)


@pytest.mark.parametrize("prompt", [[], [[]], [1, 2, 3], [["a"]], {"a": 1}, [{"role": 7}], 5, None, "\ud83d\ude00"])
def test_any_prompt_has_a_key_or_none_and_never_an_error(prompt: Any) -> None:
    assert key(Affinity.PREFIX, prompt=prompt) == key(Affinity.PREFIX, prompt=prompt)
