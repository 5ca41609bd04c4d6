"""Hints: wake-ups that carry no data.

A background loop waits for its hint or for its next poll, whichever comes first; a lost hint
therefore costs one poll interval, never correctness.
"""

from __future__ import annotations

import asyncio


class Hint:
    """A wake-up for one waiting loop; several `give`s before a `wait` count once."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def give(self) -> None:
        self._event.set()

    async def wait(self, timeout_seconds: float) -> bool:
        """Wait for a hint at most that long; True when one was given."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._event.wait()
        except TimeoutError:
            return False
        self._event.clear()
        return True
