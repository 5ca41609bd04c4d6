"""The reconciler's decision: a table of situations, and the invariants that money hangs on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.deployment import Action, CreateDevice, Rules, Situation, Status, Wanted, next_action
from app.domain.operation import OperationType, supersedes

NOW = datetime(2026, 11, 21, tzinfo=UTC)
TOKEN = Rules(CreateDevice.TOKEN, grace_seconds=30, drain_seconds=60)
NO_DEVICE = Rules(CreateDevice.NONE, grace_seconds=30, drain_seconds=60)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def situation(**changes: object) -> Situation:
    fields = {"now": NOW, "status": Status.PENDING, "wanted": Wanted.RUNNING, **changes}
    return Situation(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("at", "rules", "action"),
    [
        (situation(operation=OperationType.CREATE), TOKEN, Action.CREATE),
        (situation(operation=OperationType.SCALE), TOKEN, Action.CREATE),
        (situation(operation=None, status=Status.FAILED), TOKEN, Action.NOTHING),
        (situation(operation=OperationType.CREATE, intended_at=ago(1)), TOKEN, Action.FIND),
        (situation(operation=OperationType.CREATE, intended_at=ago(1), absences=1), TOKEN, Action.CREATE),
        (situation(operation=OperationType.CREATE, intended_at=ago(1), absences=1), NO_DEVICE, Action.FIND),
        (situation(operation=OperationType.CREATE, intended_at=ago(31), absences=3), NO_DEVICE, Action.GIVE_UP),
        (situation(intended_at=ago(99), absences=3, given_up=True), NO_DEVICE, Action.NOTHING),
        (situation(external_id="x", operation=OperationType.CREATE, submitted_at=ago(1)), TOKEN, Action.OBSERVE),
        (situation(external_id="x", operation=OperationType.SCALE), TOKEN, Action.SUBMIT),
        (situation(external_id="x", operation=OperationType.STOP), TOKEN, Action.DRAIN),
        (situation(external_id="x", operation=OperationType.STOP, draining_since=ago(5)), TOKEN, Action.DRAIN),
        (
            situation(external_id="x", operation=OperationType.STOP, draining_since=ago(5), drained=True),
            TOKEN,
            Action.SUBMIT,
        ),
        (situation(external_id="x", operation=OperationType.STOP, draining_since=ago(61)), TOKEN, Action.SUBMIT),
        (situation(external_id="x", operation=OperationType.START), TOKEN, Action.SUBMIT),
        (situation(external_id="x"), TOKEN, Action.OBSERVE),
        (situation(wanted=Wanted.DELETED), TOKEN, Action.MARK_DELETED),
        (situation(wanted=Wanted.DELETED, intended_at=ago(1)), NO_DEVICE, Action.FIND),
        (situation(wanted=Wanted.DELETED, intended_at=ago(1), absences=1), TOKEN, Action.FIND),
        (situation(wanted=Wanted.DELETED, intended_at=ago(31), absences=1), TOKEN, Action.MARK_DELETED),
        (situation(wanted=Wanted.DELETED, intended_at=ago(31), absences=1), NO_DEVICE, Action.GIVE_UP),
        (situation(wanted=Wanted.DELETED, external_id="x"), TOKEN, Action.DRAIN),
        (situation(wanted=Wanted.DELETED, external_id="x", draining_since=ago(1), drained=True), TOKEN, Action.DELETE),
        (
            situation(wanted=Wanted.DELETED, external_id="x", draining_since=ago(1), drained=True, submitted_at=ago(1)),
            TOKEN,
            Action.CONFIRM_ABSENCE,
        ),
        (situation(status=Status.DELETED), TOKEN, Action.NOTHING),
        (situation(status=Status.DELETED, external_id="x"), TOKEN, Action.OBSERVE),
        (situation(status=Status.DELETED, external_id="x", wanted=Wanted.DELETED), TOKEN, Action.NOTHING),
    ],
)
def test_each_situation_has_one_action(at: Situation, rules: Rules, action: Action) -> None:
    assert next_action(at, rules) is action


moments = st.one_of(st.none(), st.integers(0, 120).map(ago))
situations = st.builds(
    Situation,
    now=st.just(NOW),
    status=st.sampled_from(Status),
    wanted=st.sampled_from(Wanted),
    external_id=st.one_of(st.none(), st.just("x")),
    intended_at=moments,
    given_up=st.booleans(),
    operation=st.one_of(st.none(), st.sampled_from(OperationType)),
    submitted_at=moments,
    draining_since=moments,
    drained=st.booleans(),
    absences=st.integers(0, 3),
)
rules = st.builds(
    Rules, st.sampled_from(CreateDevice), grace_seconds=st.sampled_from([0.0, 30.0]), drain_seconds=st.just(60.0)
)


@given(situations, rules)
def test_nothing_is_created_while_an_earlier_create_may_have_happened(at: Situation, rule: Rules) -> None:
    """A second create is only ever sent where the platform itself makes it harmless, and after a look."""
    if next_action(at, rule) is not Action.CREATE or at.intended_at is None:
        return
    assert rule.device.repeatable
    assert at.absences > 0


@given(situations, rules)
def test_nothing_is_created_that_exists_or_is_to_be_deleted(at: Situation, rule: Rules) -> None:
    if next_action(at, rule) is Action.CREATE:
        assert at.external_id is None
        assert at.wanted is not Wanted.DELETED


@given(situations, rules)
def test_deleted_is_only_said_of_what_cannot_exist(at: Situation, rule: Rules) -> None:
    """With an open create it takes a look, the whole grace, and a device that proves it."""
    if next_action(at, rule) is not Action.MARK_DELETED:
        return
    assert at.external_id is None
    if at.intended_at is not None:
        assert rule.device.repeatable
        assert at.absences > 0
        assert at.now - at.intended_at >= timedelta(seconds=rule.grace_seconds)


@given(situations, rules)
def test_traffic_ends_before_anything_is_stopped_or_deleted(at: Situation, rule: Rules) -> None:
    action = next_action(at, rule)
    stops = action is Action.SUBMIT and at.operation in {OperationType.STOP, OperationType.RESTART}
    if action is Action.DELETE or stops:
        assert at.draining_since is not None


def test_a_delete_replaces_everything_and_is_replaced_by_nothing() -> None:
    others = set(OperationType) - {OperationType.DELETE}
    assert all(supersedes(OperationType.DELETE, other) for other in others)
    assert not any(supersedes(other, OperationType.DELETE) for other in OperationType)


@pytest.mark.parametrize("newer", [OperationType.START, OperationType.STOP, OperationType.RESTART])
def test_start_stop_and_restart_replace_nothing(newer: OperationType) -> None:
    assert not any(supersedes(newer, older) for older in OperationType)
