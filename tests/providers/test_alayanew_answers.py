"""AlayaNeW's answers read without a platform: statuses, addresses, names, and what is never shown."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.deployment import Status
from app.providers.platforms.alayanew.mapping import STATUSES, catalog_model, discovered, observe, status_of
from app.providers.platforms.alayanew.naming import carries, service_name, token_of
from app.providers.platforms.alayanew.redaction import redacted

KEY = "svc-0123456789abcdef"
RUNNING = {"serviceUrl": "https://svc.example/a", "apikey": KEY, "status": "running", "servedName": ["bot"]}
TOKEN = "mp-01k9zq3v7w8x9y0abcdefghjkm"
SEED_STATUSES = "starting running stopping stopped failed"
OLDER_STATUSES = "staring stoping stoped"

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
entries = st.fixed_dictionaries(
    {},
    optional={
        name: values | st.sampled_from(["running", "stopped", "https://a.example", KEY])
        for name in "serviceId serviceUrl apiKey apikey status instance servedName name modelId mode id modelMeta "
        "modelType baseServiceId reason".split()
    },
)


@pytest.mark.parametrize("word", [*SEED_STATUSES.split(), *OLDER_STATUSES.split()])
def test_every_status_of_the_vendors_pages_is_in_the_table_in_any_case(word: str) -> None:
    assert status_of(word) is status_of(word.upper()) is status_of(f" {word.title()} ") is STATUSES[word]


def test_the_table_holds_nothing_that_no_page_says() -> None:
    assert set(STATUSES) == {*SEED_STATUSES.split(), *OLDER_STATUSES.split()}


@pytest.mark.parametrize("word", ["hibernating", "", None, "run ning"])
def test_a_status_that_is_not_in_the_table_is_unknown_and_keeps_its_word(word: str | None) -> None:
    seen = observe("x", {**RUNNING, "status": word})
    assert (seen.status, seen.provider_status, seen.upstream) == (Status.UNKNOWN, word or "none", None)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://svc.example/a", "https://svc.example/a/v1"),
        ("http://svc.example:3000/a/", "http://svc.example:3000/a/v1"),
        ("svc.example/a", "https://svc.example/a/v1"),
        ("https://svc.example/a/v1/", "https://svc.example/a/v1"),
        ("https://[2001:db8::1]:8443", "https://[2001:db8::1]:8443/v1"),
        ("ftp://svc.example", None),
        ("https://svc.example/a?key=1", None),
        ("https://user:pw@svc.example", None),
        ("https://svc.example/a b", None),
        ("", None),
        (None, None),
        (["https://svc.example"], None),
    ],
)
def test_a_service_url_is_a_base_url_or_nothing(url: Any, expected: str | None) -> None:
    seen = observe("x", {**RUNNING, "serviceUrl": url})
    assert seen.service_url == expected
    assert seen.status is (Status.RUNNING if expected else Status.DEPLOYING)


@pytest.mark.parametrize(
    ("served", "first", "all_names"),
    [
        (["a", "b", "a"], "a", ("a", "b")),
        ("a", "a", ("a",)),
        ([" a ", "", None, 3], "a", ("a",)),
    ],
)
def test_the_first_served_name_is_the_deployments_own(served: Any, first: str, all_names: tuple[str, ...]) -> None:
    upstream = observe("x", {**RUNNING, "servedName": served}).upstream
    assert upstream is not None
    assert upstream.served_models == {"": first, **{name: name for name in all_names}}


@pytest.mark.parametrize("missing", ["apikey", "servedName", "serviceUrl"])
def test_a_running_service_that_cannot_be_called_yet_is_deploying(missing: str) -> None:
    seen = observe("x", {name: value for name, value in RUNNING.items() if name != missing})
    assert (seen.status, seen.provider_status, seen.upstream) == (Status.DEPLOYING, "running", None)


def test_one_loaded_instance_of_several_is_enough() -> None:
    instances = [
        {"instanceId": "0", "loraModels": ["l1"], "baseModelReady": True},
        {"instanceId": "1", "loraModels": ["l1", "l2"], "baseModelReady": False},
    ]
    seen = observe("x", {**RUNNING, "instance": instances})
    assert (seen.status, seen.ready_capacity) == (Status.RUNNING, {"replicas": 1})
    assert seen.served_models == ("bot", "l1", "l2")
    assert seen.instances[1] == {"instance_id": "1", "ready": False, "lora_models": ["l1", "l2"]}


def test_a_failure_keeps_the_platforms_reason() -> None:
    seen = observe("x", {"status": "failed", "reason": "out of GPUs"})
    assert (seen.status, seen.status_reason) == (Status.FAILED, "out of GPUs")


def test_keys_environments_and_secret_arguments_are_not_shown() -> None:
    entry = {
        **RUNNING,
        "note": f"call it with {KEY}",
        "expert": {
            "headConfig": {
                "image": "registry.example/vllm:1",
                "env": {"HF_TOKEN": "hf_abcdefgh", "PATH": "/bin"},
                "cmd": ["serve", "--api-key", "sk-one-two", "--max-tokens=5", "--hf-token=hf_x", "--port", "3000"],
            },
            "modelMeta": {"tokenizer": "qwen"},
        },
    }
    shown = redacted(entry)
    text = json.dumps(shown)
    assert not any(secret in text for secret in (KEY, "hf_abcdefgh", "sk-one-two", "hf_x"))
    head = shown["expert"]["headConfig"]
    assert head["cmd"] == ["serve", "--api-key", "***", "--max-tokens=5", "--hf-token=***", "--port", "3000"]
    assert (head["image"], head["env"]) == ("registry.example/vllm:1", {"HF_TOKEN": "***", "PATH": "***"})
    assert shown["expert"]["modelMeta"] == {"tokenizer": "qwen"}
    assert shown["status"] == "running"


@settings(max_examples=300)
@given(entries)
def test_whatever_the_platform_says_is_read_without_an_error_and_without_its_key(entry: dict[str, Any]) -> None:
    seen, row, model = observe("x", entry), discovered(entry), catalog_model(entry)
    if isinstance(entry.get("apikey"), str) and entry["apikey"] == KEY:
        assert KEY not in json.dumps([seen.raw, row.raw, model.raw])
    assert seen.upstream is None or seen.status is Status.RUNNING
    assert (seen.service_url is None) == (seen.upstream is None)


@given(st.from_regex(r"\A[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z"))
def test_a_token_is_read_back_from_any_name_that_it_was_put_into(name: str) -> None:
    made = service_name(name, TOKEN)
    assert len(made) <= 63
    assert token_of(made) == TOKEN
    assert carries(made, TOKEN)
    assert not carries(made, TOKEN[:-1])


@pytest.mark.parametrize("name", ["bot", "mp-short", f"{TOKEN}-2", f"x{TOKEN}", None, ""])
def test_a_name_without_our_token_is_not_ours(name: str | None) -> None:
    assert token_of(name) is None
