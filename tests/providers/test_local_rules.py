"""The pure parts of the `local` provider: the decision about a server, and what a deployment may say."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.connection import Connection, ProviderKind
from app.domain.deployment import DeploymentSpec, Wanted
from app.errors import InvalidRequest
from app.providers.local_host import LLAMA_CPP, ArgumentRule, LocalEngine, LocalHost, LocalModel
from app.providers.platforms.local.arguments import as_words, parse_arguments
from app.providers.platforms.local.config import LocalSettings
from app.providers.platforms.local.plan import ServerPlan, make_plan
from app.providers.platforms.local.provider import LocalProvider
from app.providers.platforms.local.state import Record, Run
from app.providers.platforms.local.steps import CRASH_LIMIT, Sight, Step, next_step

RULES = {
    "--ctx-size": ArgumentRule("integer", 256, 4096),
    "--ratio": ArgumentRule("number", 0, 1),
    "--mode": ArgumentRule("choice", values=("on", "off")),
    "--quick": ArgumentRule("flag"),
}
TENANT = "ten_" + "0" * 26


def host() -> LocalHost:
    from pathlib import Path

    return LocalHost(
        node_id="nod_test",
        data_dir=Path("unused"),
        address="127.0.0.1",
        python=Path("python"),
        cpu_count=2,
        engines={LLAMA_CPP: LocalEngine(LLAMA_CPP, "2026.1", arguments=RULES)},
        models={"tiny": LocalModel("tiny", LLAMA_CPP, Path("tiny.gguf"), context_length=2048)},
    )


def refusal(**spec: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as raised:
        make_plan(host(), DeploymentSpec("bot", **{"model": "tiny", **spec}))
    return raised.value


@st.composite
def sights(draw: st.DrawFn) -> Sight:
    record = Record(ServerPlan("m", "e"), draw(st.sampled_from(list(Wanted))), draw(st.integers(1, 3)), "key")
    times = st.floats(0, 1000)
    run = st.builds(
        Run,
        generation=st.integers(1, 3),
        started_at=times,
        begun=st.booleans(),
        crashes=st.integers(0, CRASH_LIMIT + 1),
        died=st.booleans(),
        next_start_at=times,
        ending_since=st.none() | times,
    )
    alive = draw(st.booleans())
    return Sight(record, draw(st.none() | run), alive, alive and draw(st.booleans()))


@given(sights(), st.floats(0, 2000))
def test_nothing_starts_beside_a_living_server_and_nothing_living_is_forgotten(sight: Sight, now: float) -> None:
    step = next_step(sight, now)
    if sight.alive:
        assert step not in {Step.START, Step.REMOVE, Step.NOTE_DEATH}
    else:
        assert step not in {Step.END, Step.KILL}


@given(sights(), st.floats(0, 2000))
def test_only_what_is_wanted_starts_and_only_what_is_deleted_goes(sight: Sight, now: float) -> None:
    step = next_step(sight, now)
    wanted = sight.record.wanted
    assert (step is Step.REMOVE) == (wanted is Wanted.DELETED and not sight.alive)
    if step in {Step.START, Step.NOTE_DEATH}:
        assert wanted is Wanted.RUNNING
    if wanted is Wanted.RUNNING and sight.alive and sight.current and not sight.headless:
        assert step is Step.WAIT


@given(sights(), st.floats(0, 2000))
def test_a_server_is_killed_only_after_it_was_asked_to_end(sight: Sight, now: float) -> None:
    if next_step(sight, now) is Step.KILL:
        assert sight.run is not None
        assert sight.run.ending_since is not None
        assert now - sight.run.ending_since >= 5 or now < sight.run.ending_since


@given(sights(), st.floats(0, 2000))
def test_after_its_last_death_a_server_is_left_alone(sight: Sight, now: float) -> None:
    if sight.given_up and sight.run is not None and sight.run.begun and not sight.alive:
        assert next_step(sight, now) in {Step.WAIT, Step.REMOVE}


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["--ctx-size", "512"], {"--ctx-size": 512}),
        (["--ctx-size=512", "--quick"], {"--ctx-size": 512, "--quick": True}),
        (["--ctx-size", 512, "--ratio", 0.5], {"--ctx-size": 512, "--ratio": 0.5}),
        (["--mode", "on", "--mode", "off"], {"--mode": "off"}),
        ([], {}),
    ],
)
def test_arguments_are_read_in_both_spellings(words: list[Any], found: dict[str, Any]) -> None:
    assert parse_arguments(words, RULES, engine="e") == found
    assert parse_arguments(as_words(found), RULES, engine="e") == found


@pytest.mark.parametrize(
    "words",
    [
        ["--model", "/etc/passwd"],
        ["-m", "/etc/passwd"],
        ["/etc/passwd"],
        ["--mode", "/etc/passwd"],
        ["--mode=../../x"],
        ["--ctx-size", "512/../x"],
        ["--ctx-size", "255"],
        ["--ctx-size", "4097"],
        ["--ctx-size", "1e3"],
        ["--ctx-size", "٥١٢"],
        ["--ctx-size", " 512"],
        ["--ctx-size"],
        ["--ratio", "nan"],
        ["--ratio", "inf"],
        ["--ratio", "1.1"],
        ["--quick=1"],
        ["--quick", "1"],
        [None],
        [["--quick"]],
        [True],
        ["--quick"] * 65,
        "--quick",
        7,
        {"--quick": True},
    ],
)
def test_an_argument_outside_the_allow_list_is_refused_by_name(words: Any) -> None:
    with pytest.raises(InvalidRequest) as raised:
        parse_arguments(words, RULES, engine="e")
    assert raised.value.code == "invalid_engine_argument"
    assert str(raised.value.param).startswith("engine.args")


@given(st.lists(st.sampled_from([*RULES, "512", "on", "0.5", "/x"]) | st.text(max_size=8) | st.integers(), max_size=6))
def test_what_is_taken_is_within_the_rules_and_reads_back_the_same(words: list[Any]) -> None:
    try:
        found = parse_arguments(words, RULES, engine="e")
    except InvalidRequest:
        return
    assert parse_arguments(as_words(found), RULES, engine="e") == found
    assert all("/" not in str(value) for value in found.values())


def test_a_spec_becomes_a_plan() -> None:
    spec = DeploymentSpec(
        "bot",
        "tiny",
        resources={"workers": 1, "cpu": 2, "memory_bytes": 2**30, "gpu": None},
        engine={"name": LLAMA_CPP, "version": "2026.1", "args": ["--ctx-size", "2048"]},
    )
    assert make_plan(host(), spec) == ServerPlan("tiny", LLAMA_CPP, {"--ctx-size": 2048}, 2, 2**30)


@pytest.mark.parametrize(
    ("spec", "param"),
    [
        ({"model": "huge"}, "model"),
        ({"model": "../tiny"}, "model"),
        ({"engine": {"name": "vllm"}}, "engine.name"),
        ({"engine": {"version": "1"}}, "engine.version"),
        ({"engine": {"args": ["--ctx-size", "4096"]}}, "engine.args.1"),
        ({"engine": {"args": ["--model", "/etc/passwd"]}}, "engine.args.0"),
        ({"resources": {"cpu": 5}}, "resources.cpu"),
        ({"resources": {"cpu": 0}}, "resources.cpu"),
        ({"resources": {"cpu": 1.5}}, "resources.cpu"),
        ({"resources": {"cpu": True}}, "resources.cpu"),
        ({"resources": {"cpu": float("inf")}}, "resources.cpu"),
        ({"resources": {"cpu": "2"}}, "resources.cpu"),
        ({"resources": {"memory_bytes": 1}}, "resources.memory_bytes"),
        ({"resources": {"workers": 2}}, "resources.workers"),
        ({"resources": {"gpu": {"type": "A100", "count": 1}}}, "resources.gpu"),
    ],
)
def test_what_this_node_cannot_give_is_refused_before_anything_starts(spec: dict[str, Any], param: str) -> None:
    assert refusal(**spec).param == param


def test_validation_of_another_nodes_deployment_leaves_its_models_to_that_node() -> None:
    provider = LocalProvider(host())
    spec = DeploymentSpec("bot", "only-there", plan="process")
    provider.validate(Connection("con_a", ProviderKind("local"), {}, {}, node_id="nod_other"), spec)
    with pytest.raises(InvalidRequest):
        provider.validate(Connection("con_a", ProviderKind("local"), {}, {}, node_id="nod_test"), spec)


def test_a_connection_is_for_the_tenants_that_it_names() -> None:
    provider = LocalProvider(None)
    assert provider.usable_by({"tenants": ["*"]}, TENANT)
    assert provider.usable_by({"tenants": [TENANT]}, TENANT)
    assert not provider.usable_by({"tenants": [TENANT]}, "ten_" + "1" * 26)
    assert not provider.usable_by({}, TENANT)


@pytest.mark.parametrize("tenants", [[], ["*", TENANT], ["everyone"], ["key_" + "0" * 26], "*", None])
def test_tenants_are_named_by_id_or_all_at_once(tenants: Any) -> None:
    with pytest.raises(ValueError, match="tenants"):
        LocalSettings(tenants=tenants)
