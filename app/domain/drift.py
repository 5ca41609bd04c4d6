"""Drift: what changed at the platform although nobody asked us for it. Told, and never repaired."""

from __future__ import annotations

from collections.abc import Mapping

Amounts = Mapping[str, float] | None


def is_off(wished: Amounts, ready: Amounts) -> bool:
    """Whether what is ready is known, and not what was wished; an autoscaled size may be anything in its range."""
    if not wished or not ready:
        return False
    if "min_replicas" in wished:
        replicas = ready.get("replicas")
        return replicas is not None and not wished["min_replicas"] <= replicas <= wished["max_replicas"]
    return any(name in ready and ready[name] != amount for name, amount in wished.items())


def has_drifted(wished: Amounts, before: Amounts, now: Amounts) -> bool:
    """Whether this look, and not an earlier one, shows another size than was wished.

    Where no size was wished, the platform chose one, and any other is a change of it.
    """
    if not before or not now or before == now:
        return False
    return is_off(wished, now) if wished else True
