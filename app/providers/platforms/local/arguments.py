"""`engine.args` of a deployment, read against the engine's allow-list.

Accepted are `--flag value`, `--flag=value` and lone flags. Every value is a bounded number or one
of a list of words, so neither a path nor anything else of the host can be named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from app.errors import FieldError, InvalidRequest
from app.providers.local_host import ArgumentRule

Value = int | float | str | bool
_COUNT_LIMIT = 64


def parse_arguments(given: Any, rules: Mapping[str, ArgumentRule], *, engine: str) -> dict[str, Value]:
    """Flag → typed value; of a flag given twice, the last. Raises InvalidRequest naming each wrong word."""
    words = _words(given)
    found: dict[str, Value] = {}
    at = 0
    while at < len(words):
        flag, equals, inline = words[at].partition("=")
        rule = rules.get(flag)
        if rule is None:
            raise _wrong(at, f"The engine {engine} takes no {flag[:40]!r}; it takes {', '.join(sorted(rules))}.")
        if rule.type == "flag":
            text = inline if equals else None
        elif equals:
            text = inline
        else:
            at += 1
            text = words[at] if at < len(words) else None
        found[flag] = _value(flag, rule, text, at)
        at += 1
    return found


def as_words(arguments: Mapping[str, Value]) -> list[str]:
    """The same for a command line."""
    words: list[str] = []
    for flag, value in arguments.items():
        words.append(flag)
        if value is not True:
            words.append(str(value))
    return words


def _words(given: Any) -> list[str]:
    if isinstance(given, (str, bytes)) or not isinstance(given, Sequence) or len(given) > _COUNT_LIMIT:
        raise _wrong(None, f"engine.args must be a list of at most {_COUNT_LIMIT} words.")
    for at, word in enumerate(given):
        if not isinstance(word, (str, int, float)) or isinstance(word, bool):
            raise _wrong(at, "Each of engine.args must be a word or a number.")
    return [str(word) for word in given]


def _value(flag: str, rule: ArgumentRule, text: str | None, at: int) -> Value:
    if rule.type == "flag":
        if text is not None:
            raise _wrong(at, f"{flag} takes no value.")
        return True
    if rule.type == "choice":
        if text not in rule.values:
            raise _wrong(at, f"{flag} must be one of {', '.join(rule.values)}.")
        return text
    number = _number(text or "", whole=rule.type == "integer")
    low, high = rule.minimum, rule.maximum
    if number is None or (low is not None and number < low) or (high is not None and number > high):
        kind = "a whole number" if rule.type == "integer" else "a number"
        raise _wrong(at, f"{flag} must be {kind}{_between(low, high)}.")
    return number


def _number(text: str, *, whole: bool) -> int | float | None:
    digits = text.removeprefix("-")
    if not digits.isascii() or len(digits) > 18 or not digits.replace(".", "", 0 if whole else 1).isdigit():
        return None
    return int(text) if whole else float(text)


def _between(low: float | None, high: float | None) -> str:
    if low is not None and high is not None:
        return f" from {low:g} to {high:g}"
    if low is not None:
        return f" of at least {low:g}"
    return f" of at most {high:g}" if high is not None else ""


def _wrong(at: int | None, message: str) -> InvalidRequest:
    param = "engine.args" if at is None else f"engine.args.{at}"
    code = "invalid_engine_argument"
    return InvalidRequest(message, param=param, code=code, fields=[FieldError(param, message, code)])
