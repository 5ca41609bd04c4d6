"""Settlement: what each end of a call is charged; reported, estimated, absent and zero stay different."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.estimate import MOST_TOKENS, Estimate
from app.domain.usage import (
    DEFAULT_SETTLEMENT,
    Charge,
    Outcome,
    Rule,
    TokenUsage,
    as_reported,
    check_settlement,
    plausible,
    settle,
    settlement_of,
)
from app.errors import InvalidRequest

ESTIMATE = Estimate(100, 500)
ENDS = [outcome for outcome in Outcome if outcome is not Outcome.REFUSED]
COUNTS = st.none() | st.integers(0, MOST_TOKENS)
USAGES = st.none() | st.builds(TokenUsage, COUNTS, COUNTS, COUNTS, COUNTS)


def charge(outcome: Outcome, usage: TokenUsage | None = None, produced: int = 0, **rules: str) -> Charge:
    return settle(outcome, estimate=ESTIMATE, reported=usage, produced_tokens=produced, rules=settlement_of(rules))


def test_a_complete_call_is_charged_what_was_reported() -> None:
    assert charge(Outcome.COMPLETE, TokenUsage(7, 9, 5, 3), 50) == Charge(1, 7, 9, 5, False)


def test_zero_that_was_reported_is_not_replaced_by_an_estimate() -> None:
    """BerriAI/litellm#28735, #37994."""
    assert charge(Outcome.COMPLETE, TokenUsage(0, 0), 50) == Charge(1, 0, 0, 0, False)


def test_usage_that_was_not_reported_is_estimated_and_never_zero() -> None:
    assert charge(Outcome.COMPLETE, None, 50) == Charge(1, 100, 50, 0, True)


def test_an_answer_without_output_is_not_called_an_estimate() -> None:
    """Embeddings report their input only."""
    assert charge(Outcome.COMPLETE, TokenUsage(7)) == Charge(1, 7, 0, 0, False)


def test_a_client_that_leaves_pays_for_what_was_produced() -> None:
    """theopenco/llmgateway PR#3331: cut before the usage chunk, pay nothing."""
    assert charge(Outcome.CLIENT_LEFT, None, 40) == Charge(1, 100, 40, 0, True)
    assert charge(Outcome.CLIENT_LEFT, TokenUsage(90, 38), 40) == Charge(1, 90, 38, 0, False)


def test_a_call_that_failed_before_content_costs_nothing() -> None:
    """QuantumNous/new-api#4168."""
    assert charge(Outcome.UPSTREAM_FAILED_BEFORE_CONTENT, TokenUsage(5, 5), 9) == Charge(0, 0, 0, 0, False)


def test_a_call_that_failed_after_content_pays_for_what_was_produced() -> None:
    assert charge(Outcome.UPSTREAM_FAILED_AFTER_CONTENT, None, 3) == Charge(1, 100, 3, 0, True)


def test_a_call_of_a_killed_gateway_pays_its_estimate() -> None:
    assert charge(Outcome.GATEWAY_LOST) == Charge(1, 100, 500, 0, True)


def test_a_tenant_may_choose_another_rule() -> None:
    assert charge(Outcome.CLIENT_LEFT, None, 40, client_left="nothing") == Charge(0, 0, 0, 0, False)
    assert charge(Outcome.CLIENT_LEFT, None, 40, client_left="estimate") == Charge(1, 100, 500, 0, True)
    assert charge(Outcome.GATEWAY_LOST, gateway_lost="nothing").requests == 0


@pytest.mark.parametrize(
    "rules", [{"complete": "nothing"}, {"refused": "estimate"}, {"client_left": 5}, {"x": "nothing"}]
)
def test_a_rule_that_an_outcome_cannot_have_is_refused_and_means_nothing(rules: dict[str, object]) -> None:
    assert settlement_of(rules) == DEFAULT_SETTLEMENT
    with pytest.raises(InvalidRequest, match="settlement"):
        check_settlement(rules)


def test_rules_that_can_be_chosen_are_taken() -> None:
    check_settlement({"client_left": "estimate", "upstream_failed_before_content": "produced"})
    assert settlement_of({"client_left": "estimate"}).client_left is Rule.ESTIMATE


@given(st.sampled_from(ENDS), USAGES, st.integers(-5, 10**12))
def test_every_charge_can_be_counted(outcome: Outcome, usage: TokenUsage | None, produced: int) -> None:
    found = charge(outcome, usage, produced)
    assert all(0 <= count <= MOST_TOKENS for count in (found.input_tokens, found.output_tokens))
    assert found.cached_input_tokens <= found.input_tokens
    assert found.requests in (0, 1)
    assert found.tokens == found.input_tokens + found.output_tokens


@given(USAGES)
def test_what_can_be_is_believed_as_it_is(usage: TokenUsage | None) -> None:
    assert plausible(usage) == (usage, True)


NONSENSE = st.one_of(st.none(), st.integers(-2, MOST_TOKENS + 2), st.booleans(), st.text(max_size=1))


@given(st.builds(TokenUsage, NONSENSE, NONSENSE, NONSENSE, NONSENSE) | st.none())
def test_the_short_way_of_a_complete_call_charges_what_the_long_one_does(usage: TokenUsage | None) -> None:
    short = as_reported(usage)
    possible, is_plausible = plausible(usage)
    if short is not None:
        assert is_plausible
        assert short == charge(Outcome.COMPLETE, possible)
    elif is_plausible and usage is not None:
        assert None in usage[:2], "whatever was said in full goes the short way"


@pytest.mark.parametrize("nonsense", [-1, 10**12, "5", 1.5, True, [], MOST_TOKENS + 1])
def test_what_cannot_be_is_absent_and_said_to_have_been_there(nonsense: object) -> None:
    found = TokenUsage(nonsense, 5)  # type: ignore[arg-type]
    assert plausible(found) == (TokenUsage(None, 5), False)
