"""What goes wrong at the platforms: by requests, so that it strikes creates more often than anything else."""

from __future__ import annotations

import asyncio
import random

from bench.kills.modes import Mode
from tests.emulators.faults import Fault, Order

_TOO_LATE_SECONDS = 11.0
"""More than the gateway waits for an answer of a platform's control plane."""
_LONGEST_HIDDEN_SECONDS = 3.0
_CREATES = (
    *(Fault(Order.LOSE),) * 4,
    *(Fault(Order.DROP),) * 2,
    Fault(Order.CUT),
    Fault(Order.REPLY, status=500, body=b"<html>Internal Server Error</html>", content_type="text/html"),
    Fault(Order.REPLY, status=503, headers=(("retry-after", "1"),)),
    Fault(Order.REPLACE, status=502, body=b"<html>Bad Gateway</html>", content_type="text/html"),
    Fault(Order.SLOW, seconds=_TOO_LATE_SECONDS),
    Fault(Order.DELAY, seconds=_TOO_LATE_SECONDS),
)
_ANYTHING = (
    *(Fault(Order.LOSE),) * 2,
    *(Fault(Order.DROP),) * 2,
    Fault(Order.REPLY, status=500),
    Fault(Order.REPLY, status=429, headers=(("retry-after", "1"),)),
    Fault(Order.REPLACE, status=504),
)


class Trouble:
    """`made` counts the faults that were ordered."""

    def __init__(self, modes: list[Mode], dice: random.Random) -> None:
        self._modes, self._dice = modes, dice
        self.made = 0

    async def go_on(self) -> None:
        """For ever."""
        while True:
            await asyncio.sleep(self._dice.uniform(0.1, 0.8))
            mode, chance = self._dice.choice(self._modes), self._dice.random()
            if chance < 0.15:
                mode.account.switches.hidden_seconds = self._dice.choice((0.0, self._dice.random(), 3.0))
            elif chance < 0.65:
                self._order(mode, self._dice.choice(_CREATES), *mode.creates)
            else:
                self._order(mode, self._dice.choice(_ANYTHING), "*", "")

    def end(self) -> None:
        for mode in self._modes:
            mode.account.faults.pending.clear()
            mode.account.switches.hidden_seconds = 0.0

    def _order(self, mode: Mode, kind: Fault, method: str, path: str) -> None:
        given = {"status": kind.status, "body": kind.body, "content_type": kind.content_type}
        fault = Fault(kind.order, method, path, headers=kind.headers, seconds=kind.seconds, **given)
        mode.account.faults.add(fault)
        self.made += 1
