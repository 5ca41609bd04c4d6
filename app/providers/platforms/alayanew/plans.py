"""AlayaNeW's three ways to deploy, which are its plans: one prepared engine, one's own image, an adapter."""

from __future__ import annotations

from enum import StrEnum


class Plan(StrEnum):
    """The vendor's words, as `mode` in a service's detail and as `plan` with us."""

    QUICK_START = "quickStart"
    EXPERT = "expert"
    LORA = "lora"


def plan_of(name: str | None) -> Plan:
    """A deployment that names no plan is the simplest one. Raises ValueError."""
    return Plan(name) if name else Plan.QUICK_START


def plan_from(mode: str | None) -> Plan | None:
    """The plan that a `mode` of the platform's means, in whatever case it is written."""
    return next((plan for plan in Plan if mode and plan.lower() == mode.lower()), None)
