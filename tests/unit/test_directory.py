"""The directory in memory: any order of news gives the newest, and the indexes always agree with the values."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.deployment import Status, UpstreamSpec
from app.domain.directory import ApiKeyEntry, DeploymentEntry, Entry, KeyProof, RouteEntry, TenantEntry
from app.domain.route import Target
from app.domain.tenant import Principal, Scope
from app.errors import DeploymentNotRunning, ModelNotFound
from app.kit.hints import Hint
from app.proxy.directory import PLATFORM, Directory
from app.proxy.heartbeat import OpenStreams
from app.proxy.limits import ProxyLimits
from app.proxy.resolve import callable_models, resolve
from app.proxy.routing import Routing
from app.store.changes import Loaded

UPSTREAM = UpstreamSpec("https://upstream.test/v1", "Authorization", "Bearer x", {"": "served"})


def tenant(identifier: str = "t1", version: int = 1, **more: Any) -> TenantEntry:
    return TenantEntry(**{"id": identifier, "name": identifier, "suspended": False, "version": version, **more})


def key(identifier: str = "k1", version: int = 1, public_ids: tuple[str, ...] = ("p1",)) -> ApiKeyEntry:
    principal = Principal("t1", identifier, frozenset({Scope.INFERENCE}))
    return ApiKeyEntry(identifier, principal, tuple(KeyProof(one, "pep", b"digest") for one in public_ids), version)


def deployment(identifier: str = "d1", version: int = 1, **more: Any) -> DeploymentEntry:
    values = {
        "id": identifier,
        "tenant_id": "t1",
        "name": identifier,
        "provider": "openai_compatible",
        "status": Status.RUNNING,
        "draining": False,
        "upstream": UPSTREAM,
        "served_models": {"": "served"},
        "trusted": False,
        "created_at": 1.0,
        "version": version,
        **more,
    }
    return DeploymentEntry(**values)


def route(identifier: str = "r1", version: int = 1, **more: Any) -> RouteEntry:
    values = {
        "id": identifier,
        "tenant_id": "t1",
        "name": identifier,
        "targets": (Target("d1"),),
        "shared_with": frozenset(),
        "created_at": 2.0,
        "version": version,
        **more,
    }
    return RouteEntry(**values)


def directory_of(*entries: Entry) -> Directory:
    directory = Directory()
    directory.apply(Loaded(entries))
    return directory


def called(directory: Directory, tenant_id: str, model: str) -> str:
    """The deployment that a call goes to."""
    named = resolve(directory, tenant_id, model)
    routing = Routing(directory, OpenStreams(directory, Hint()), ProxyLimits())
    target = routing.choose(named)
    if target is None:
        raise routing.refusal(named)
    return target.deployment.id


NAMES = st.sampled_from(["a", "b"])
VERSIONS = st.integers(1, 4)
OWNERS = st.sampled_from([None, "t1", "t2"])
SHARED = st.sampled_from([frozenset[str](), frozenset({"*"}), frozenset({"t2"})])
NEWS: st.SearchStrategy[Entry | tuple[str, str]] = st.one_of(
    st.builds(tenant, st.sampled_from(["t1", "t2"]), VERSIONS, suspended=st.booleans()),
    st.builds(key, st.sampled_from(["k1", "k2"]), VERSIONS, st.sampled_from([("p1",), ("p2",), ("p1", "p2"), ()])),
    st.builds(
        deployment, st.sampled_from(["d1", "d2"]), VERSIONS, name=NAMES, upstream=st.sampled_from([UPSTREAM, None])
    ),
    st.builds(route, st.sampled_from(["r1", "r2"]), VERSIONS, name=NAMES, tenant_id=OWNERS, shared_with=SHARED),
    st.sampled_from([("tenant", "t1"), ("api_key", "k1"), ("deployment", "d1"), ("route", "r1")]),
)


@given(st.lists(NEWS, max_size=30))
def test_an_older_version_never_replaces_a_newer_one_and_what_was_removed_stays_removed(
    news: list[Entry | tuple[str, str]],
) -> None:
    directory = Directory()
    newest: dict[str, Entry] = {}
    gone: set[str] = set()
    for one in news:
        if isinstance(one, tuple):
            directory.apply(Loaded((), frozenset({one})))
            newest.pop(one[1], None)
            gone.add(one[1])
            continue
        directory.apply(Loaded((one,)))
        if one.id not in gone and (one.id not in newest or newest[one.id].version <= one.version):
            newest[one.id] = one
    shelves = (directory.tenants, directory.keys, directory.deployments, directory.routes)
    held = {identifier: entry for shelf in shelves for identifier, entry in shelf.entries.items()}
    assert held == newest
    assert all(held[identifier].version == newest[identifier].version for identifier in held)


@given(st.lists(NEWS, max_size=30))
def test_every_index_entry_belongs_to_a_value_that_is_held(news: list[Entry | tuple[str, str]]) -> None:
    """A name or public id that two values claim belongs to one of them, whichever came last."""
    directory = Directory()
    for one in news:
        directory.apply(Loaded((), frozenset({one})) if isinstance(one, tuple) else Loaded((one,)))
    keys, deployments, routes = directory.keys.entries, directory.deployments.entries, directory.routes.entries
    assert all(keys[entry.id] is entry and proof in entry.proofs for entry, proof in directory.proofs.values())
    assert directory.upstreams.keys() == {entry.id for entry in deployments.values() if entry.upstream}
    for owner in ("t1", "t2", PLATFORM):
        for named in directory.all_named(owner):
            assert named in (deployments if isinstance(named, DeploymentEntry) else routes).values()
            assert (named.tenant_id or PLATFORM) == owner
    shared = {entry for entries in directory.all_shared() for entry in entries}
    assert shared == {entry for entry in routes.values() if entry.shared_with}


def test_a_whole_registry_removes_what_it_does_not_hold() -> None:
    directory = directory_of(tenant(), key(), deployment(), route())
    directory.replace_all(Loaded((tenant(), deployment("d2"))))
    assert directory.proofs == {}
    assert directory.named("t1", "d1") is None
    assert directory.named("t1", "r1") is None
    assert directory.deployments.entries.keys() == directory.upstreams.keys() == {"d2"}
    directory.apply(Loaded((key(version=9),)))
    assert directory.proofs == {}, "a late reader cannot bring it back"


def test_the_beginning_of_a_drain_is_told_once() -> None:
    directory = directory_of(deployment())
    assert directory.apply(Loaded((deployment(version=2, draining=True),)))
    assert not directory.apply(Loaded((deployment(version=3, draining=True),)))
    assert directory.apply(Loaded((), frozenset({("deployment", "d1")})))


def test_a_name_that_is_taken_over_in_the_same_read_stays_with_the_newcomer() -> None:
    directory = directory_of(deployment(name="bot"))
    directory.apply(Loaded((deployment("d2", name="bot"),), frozenset({("deployment", "d1")})))
    assert called(directory, "t1", "bot") == "d2"


def test_ones_own_name_goes_before_a_shared_one_and_the_platforms_before_anothers() -> None:
    everyone = frozenset({"*"})
    theirs = route("r1", tenant_id="t1", name="bot", shared_with=everyone)
    platforms = route("r9", tenant_id=None, name="bot", shared_with=everyone, targets=(Target("d2"),))
    directory = directory_of(deployment("d1"), deployment("d2"), theirs)
    assert called(directory, "t2", "bot") == "d1"
    directory.apply(Loaded((platforms,)))
    assert called(directory, "t2", "bot") == "d2"
    directory.apply(Loaded((deployment("d3", tenant_id="t2", name="bot"),)))
    assert called(directory, "t2", "bot") == "d3"


def test_a_route_leads_only_to_targets_that_run_and_belong_to_its_owner() -> None:
    targets = (Target("d1"), Target("d2"), Target("d3"), Target("d4", weight=0), Target("nowhere"))
    directory = directory_of(
        deployment("d1", status=Status.STOPPED),
        deployment("d2"),
        deployment("d3", tenant_id="t2"),
        deployment("d4"),
        route(targets=targets),
    )
    assert {called(directory, "t1", "r1") for _ in range(50)} == {"d2"}
    directory.apply(Loaded((), frozenset({("deployment", "d2")})))
    with pytest.raises(DeploymentNotRunning):
        called(directory, "t1", "r1")


def test_lower_priorities_are_used_when_the_first_is_down() -> None:
    targets = (Target("d1", priority=0), Target("d2", priority=1))
    directory = directory_of(deployment("d1", draining=True), deployment("d2"), route(targets=targets))
    assert called(directory, "t1", "r1") == "d2"


def test_of_several_deployments_that_do_not_run_the_likeliest_is_told() -> None:
    targets = (Target("d1"), Target("d2"), Target("d3"))
    directory = directory_of(
        deployment("d1", status=Status.STOPPED),
        deployment("d2", status=Status.DEPLOYING),
        deployment("d3", status=Status.FAILED),
        route(targets=targets),
    )
    with pytest.raises(DeploymentNotRunning, match="deploying") as raised:
        called(directory, "t1", "r1")
    assert raised.value.retryable


@given(st.lists(NEWS, max_size=20), st.sampled_from(["t1", "t2"]))
def test_what_is_listed_can_be_called_and_what_can_be_called_is_listed(
    news: list[Entry | tuple[str, str]], tenant_id: str
) -> None:
    directory = Directory()
    for one in news:
        directory.apply(Loaded((), frozenset({one})) if isinstance(one, tuple) else Loaded((one,)))
    listed = {model.name for model in callable_models(directory, tenant_id)}
    for name in ("a", "b"):
        try:
            called(directory, tenant_id, name)
        except (ModelNotFound, DeploymentNotRunning):
            assert name not in listed
        else:
            assert name in listed
