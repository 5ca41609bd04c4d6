"""Usage: what one call took, how it ended, and what it is charged.

    outcome                          default rule   a tenant may choose
    complete                         reported       reported, estimate
    client_left                      produced       reported, produced, estimate, nothing
    upstream_failed_before_content   nothing        nothing, produced, estimate
    upstream_failed_after_content    produced       reported, produced, estimate, nothing
    gateway_lost                     estimate       estimate, nothing

`reported`   the upstream's counts; of what it did not say, the input's estimate and the output it produced
`produced`   the upstream's last count if it counted on the way, else the input's estimate and what was passed on
`estimate`   what was put aside before the call
`nothing`    no request, no tokens, no cost

Counts that an upstream gives, zero included, are never replaced by an estimate; what it left out is
estimated and marked, so that reported, estimated, absent and zero stay four different things.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple

from app.domain.estimate import MOST_TOKENS, Estimate
from app.errors import FieldError, InvalidRequest


class Outcome(StrEnum):
    """How a call ended. A refused one reached no upstream: it is counted, and leaves no usage record."""

    REFUSED = "refused"
    COMPLETE = "complete"
    CLIENT_LEFT = "client_left"
    UPSTREAM_FAILED_BEFORE_CONTENT = "upstream_failed_before_content"
    UPSTREAM_FAILED_AFTER_CONTENT = "upstream_failed_after_content"
    GATEWAY_LOST = "gateway_lost"

    __hash__ = str.__hash__  # an enumeration's own is a Python function, and every call is counted by its outcome


class TokenUsage(NamedTuple):
    """Token counts as the upstream reports them. None means that it said nothing; zero means that it said zero."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_input_tokens: int | None = None
    reasoning_tokens: int | None = None


class Rule(StrEnum):
    """How an outcome is settled."""

    REPORTED = "reported"
    PRODUCED = "produced"
    ESTIMATE = "estimate"
    NOTHING = "nothing"


class Charge(NamedTuple):
    """What a call is charged. `estimated`: at least one of the two counts is not the upstream's."""

    requests: int
    input_tokens: int
    output_tokens: int
    cached_input_tokens: int
    estimated: bool

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens


ChargeFields = tuple[int, int, int, int, bool]
"""The fields of `Charge` as a plain tuple."""


class Settlement(NamedTuple):
    """A tenant's rule for each outcome; the fields are the outcomes' names."""

    complete: Rule = Rule.REPORTED
    client_left: Rule = Rule.PRODUCED
    upstream_failed_before_content: Rule = Rule.NOTHING
    upstream_failed_after_content: Rule = Rule.PRODUCED
    gateway_lost: Rule = Rule.ESTIMATE


DEFAULT_SETTLEMENT = Settlement()
USAGE_IMPLAUSIBLE = "usage_implausible"
"""Mark of a record whose upstream counted what cannot be; its counts were treated as absent."""

_ANY_RULE = frozenset(Rule)
_CHOICES: Mapping[str, frozenset[Rule]] = {
    Outcome.COMPLETE: frozenset({Rule.REPORTED, Rule.ESTIMATE}),
    Outcome.CLIENT_LEFT: _ANY_RULE,
    Outcome.UPSTREAM_FAILED_BEFORE_CONTENT: frozenset({Rule.NOTHING, Rule.PRODUCED, Rule.ESTIMATE}),
    Outcome.UPSTREAM_FAILED_AFTER_CONTENT: _ANY_RULE,
    Outcome.GATEWAY_LOST: frozenset({Rule.ESTIMATE, Rule.NOTHING}),
}
NOT_SAID = TokenUsage()
_NOTHING = Charge(0, 0, 0, 0, False)
_COMPLETE, _RULE_NOTHING, _RULE_ESTIMATE = Outcome.COMPLETE, Rule.NOTHING, Rule.ESTIMATE
"""Python 3.11 looks a member of an enumeration up in 80 ns; this is the hot path."""


def settle(
    outcome: Outcome,
    *,
    estimate: Estimate,
    reported: TokenUsage | None = None,
    produced_tokens: int = 0,
    rules: Settlement = DEFAULT_SETTLEMENT,
) -> Charge:
    """What a call that ended so is charged; pure.

    `reported` is the upstream's last count; `produced_tokens` what was passed on to the client, counted
    by us (a token an event, or bytes). Counts must be plausible: see `plausible`.
    """
    rule: Rule = rules.complete if outcome is _COMPLETE else getattr(rules, outcome.value)
    if rule is _RULE_NOTHING:
        return _NOTHING
    if rule is _RULE_ESTIMATE:
        return Charge(1, estimate.input_tokens, estimate.output_tokens, 0, True)
    input_tokens, output_tokens, cached, _ = reported or NOT_SAID
    estimated = False
    if input_tokens is None:
        input_tokens, estimated = estimate.input_tokens, True
    if output_tokens is None:
        output_tokens = min(max(produced_tokens, 0), MOST_TOKENS)
        estimated = estimated or output_tokens > 0
    return Charge(1, input_tokens, output_tokens, min(cached, input_tokens) if cached else 0, estimated)


def as_reported(usage: TokenUsage | None) -> ChargeFields | None:
    """What `reported` charges a complete call whose upstream has said both counts; None: that takes `settle`.

    The same as `plausible` and `settle` make of it, at a third of the cost: nearly every call ends so.
    """
    if usage is None:
        return None
    input_tokens, output_tokens, cached, reasoning = usage
    if not (type(input_tokens) is int and type(output_tokens) is int):
        return None
    if not (0 <= input_tokens <= MOST_TOKENS and 0 <= output_tokens <= MOST_TOKENS):
        return None
    if (cached is not None and not _is_count(cached)) or (reasoning is not None and not _is_count(reasoning)):
        return None
    return 1, input_tokens, output_tokens, min(cached, input_tokens) if cached else 0, False


def plausible(usage: TokenUsage | None) -> tuple[TokenUsage | None, bool]:
    """`usage` with impossible counts taken out, and whether there were any: negative, no integer, above 10^9."""
    if usage is None:
        return None, True
    for count in usage:
        if count is not None and (type(count) is not int or not 0 <= count <= MOST_TOKENS):
            return TokenUsage(*(one if _is_count(one) else None for one in usage)), False
    return usage, True


def settlement_of(overrides: Mapping[str, Any]) -> Settlement:
    """The rules of a tenant. Entries that mean nothing to this release do not count: see `check_settlement`."""
    known = {name: Rule(value) for name, value in overrides.items() if value in _CHOICES.get(name, ())}
    return DEFAULT_SETTLEMENT._replace(**known)


def check_settlement(overrides: Mapping[str, Any]) -> None:
    """For whoever writes a tenant. Raises InvalidRequest for an unknown outcome or a rule it cannot have."""
    for name, value in overrides.items():
        choices = _CHOICES.get(name, frozenset())
        if value not in choices:
            known = f"one of {', '.join(sorted(choices))}" if choices else "left out: there is no such outcome"
            param = f"settlement.{name}"
            error = FieldError(param, f"must be {known}.", "invalid_value")
            raise InvalidRequest(f"'{param}' {error.message}", param=param, code=error.code, fields=(error,))


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value <= MOST_TOKENS
