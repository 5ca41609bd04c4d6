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
from types import MappingProxyType
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


Settlement = Mapping[Outcome, Rule]

DEFAULT_SETTLEMENT: Settlement = MappingProxyType(
    {
        Outcome.COMPLETE: Rule.REPORTED,
        Outcome.CLIENT_LEFT: Rule.PRODUCED,
        Outcome.UPSTREAM_FAILED_BEFORE_CONTENT: Rule.NOTHING,
        Outcome.UPSTREAM_FAILED_AFTER_CONTENT: Rule.PRODUCED,
        Outcome.GATEWAY_LOST: Rule.ESTIMATE,
    }
)
USAGE_IMPLAUSIBLE = "usage_implausible"
"""Mark of a record whose upstream counted what cannot be; its counts were treated as absent."""

_ANY_RULE = frozenset(Rule)
_CHOICES: Mapping[Outcome, frozenset[Rule]] = {
    Outcome.COMPLETE: frozenset({Rule.REPORTED, Rule.ESTIMATE}),
    Outcome.CLIENT_LEFT: _ANY_RULE,
    Outcome.UPSTREAM_FAILED_BEFORE_CONTENT: frozenset({Rule.NOTHING, Rule.PRODUCED, Rule.ESTIMATE}),
    Outcome.UPSTREAM_FAILED_AFTER_CONTENT: _ANY_RULE,
    Outcome.GATEWAY_LOST: frozenset({Rule.ESTIMATE, Rule.NOTHING}),
}
_NOTHING = Charge(0, 0, 0, 0, estimated=False)
_NOT_SAID = TokenUsage()


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
    rule = rules[outcome]
    if rule is Rule.NOTHING:
        return _NOTHING
    if rule is Rule.ESTIMATE:
        return Charge(1, estimate.input_tokens, estimate.output_tokens, 0, estimated=True)
    said = reported or _NOT_SAID
    input_tokens = estimate.input_tokens if said.input_tokens is None else said.input_tokens
    output_tokens = min(max(produced_tokens, 0), MOST_TOKENS) if said.output_tokens is None else said.output_tokens
    estimated = said.input_tokens is None or (said.output_tokens is None and output_tokens > 0)
    cached = min(said.cached_input_tokens or 0, input_tokens)
    return Charge(1, input_tokens, output_tokens, cached, estimated)


def plausible(usage: TokenUsage | None) -> tuple[TokenUsage | None, bool]:
    """`usage` with impossible counts taken out, and whether there were any: negative, no integer, above 10^9."""
    if usage is None:
        return None, True
    if all(count is None or _is_count(count) for count in usage):
        return usage, True
    return TokenUsage(*(count if _is_count(count) else None for count in usage)), False


def settlement_of(overrides: Mapping[str, Any]) -> Settlement:
    """The rules of a tenant. Entries that mean nothing to this release do not count: see `check_settlement`."""
    rules = dict(DEFAULT_SETTLEMENT)
    for name, value in overrides.items():
        if name in rules and value in _CHOICES[Outcome(name)]:
            rules[Outcome(name)] = Rule(value)
    return rules


def check_settlement(overrides: Mapping[str, Any]) -> None:
    """For whoever writes a tenant. Raises InvalidRequest for an unknown outcome or a rule it cannot have."""
    for name, value in overrides.items():
        choices = _CHOICES[Outcome(name)] if name in DEFAULT_SETTLEMENT else frozenset[Rule]()
        if value not in choices:
            known = f"one of {', '.join(sorted(choices))}" if choices else "left out: there is no such outcome"
            param = f"settlement.{name}"
            error = FieldError(param, f"must be {known}.", "invalid_value")
            raise InvalidRequest(f"'{param}' {error.message}", param=param, code=error.code, fields=(error,))


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value <= MOST_TOKENS
