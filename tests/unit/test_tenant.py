"""What a principal may do, and what a key may hand on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.tenant import Principal, Scope, may_grant, may_outlive
from app.errors import NotPermitted

NOW = datetime(2030, 1, 1, tzinfo=UTC)
scopes = st.frozensets(st.sampled_from(list(Scope)), min_size=1)
models = st.none() | st.frozensets(st.sampled_from(["chat", "code", "embed"]))


def principal(*held: Scope, models: frozenset[str] | None = None, expires_at: datetime | None = None) -> Principal:
    return Principal("ten_1", "key_1", frozenset(held), models, expires_at)


def test_admin_includes_read_and_write_but_not_inference() -> None:
    admin = principal(Scope.ADMIN)
    assert admin.is_admin
    assert [scope for scope in Scope if admin.may(scope)] == [Scope.READ, Scope.WRITE, Scope.ADMIN]
    with pytest.raises(NotPermitted, match="inference"):
        admin.require(Scope.INFERENCE)


def test_no_scope_of_a_tenant_includes_another() -> None:
    for held in (Scope.INFERENCE, Scope.READ, Scope.WRITE):
        assert [scope for scope in Scope if principal(held).may(scope)] == [held]


def test_a_key_without_models_may_call_all_and_one_with_an_empty_set_none() -> None:
    assert principal(Scope.INFERENCE).may_call("chat")
    assert principal(Scope.INFERENCE, models=frozenset({"chat"})).may_call("chat")
    assert not principal(Scope.INFERENCE, models=frozenset({"chat"})).may_call("code")
    assert not principal(Scope.INFERENCE, models=frozenset()).may_call("chat")


@given(held=scopes, held_models=models, wanted=scopes, wanted_models=models)
def test_whatever_is_granted_can_do_nothing_that_its_maker_cannot(
    held: frozenset[Scope],
    held_models: frozenset[str] | None,
    wanted: frozenset[Scope],
    wanted_models: frozenset[str] | None,
) -> None:
    maker = principal(*(held - {Scope.ADMIN} or {Scope.READ}), models=held_models)
    if not may_grant(maker, wanted, wanted_models):
        return
    granted = principal(*wanted, models=wanted_models)
    assert all(maker.may(scope) for scope in Scope if granted.may(scope))
    assert all(maker.may_call(model) for model in ("chat", "code", "embed", "other") if granted.may_call(model))


@given(held=scopes, held_models=models)
def test_a_key_may_grant_all_that_it_has(held: frozenset[Scope], held_models: frozenset[str] | None) -> None:
    assert may_grant(principal(*held, models=held_models), held, held_models)


@given(wanted=scopes, wanted_models=models)
def test_an_admin_grants_anything_for_any_time(wanted: frozenset[Scope], wanted_models: frozenset[str] | None) -> None:
    admin = principal(Scope.ADMIN, models=frozenset(), expires_at=NOW)
    assert may_grant(admin, wanted, wanted_models)
    assert may_outlive(admin, None)


def test_what_a_key_with_an_end_makes_ends_no_later() -> None:
    maker = principal(Scope.WRITE, expires_at=NOW)
    assert may_outlive(maker, NOW)
    assert may_outlive(maker, NOW - timedelta(seconds=1))
    assert not may_outlive(maker, NOW + timedelta(seconds=1))
    assert not may_outlive(maker, None)
    assert may_outlive(principal(Scope.WRITE), None)
