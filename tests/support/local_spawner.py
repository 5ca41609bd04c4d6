"""Gateway processes that can be killed: each line `VERB TOKEN POINT` on stdin forks one that does it.

Run as `python -m tests.support.local_spawner ENGINES_FILE DATA_DIR`. VERB is `create` or `stop`, POINT
a crash point or `-`. Prints the forked process's id at once and, on an empty line, how all have ended.
"""

from __future__ import annotations

import os
import sys
import traceback
from dataclasses import replace
from pathlib import Path

from app.domain.deployment import DeploymentSpec, Wanted
from app.kit import crash
from app.kit.logging import configure_logging
from app.providers.local_host import LocalHost
from app.providers.local_loader import load_local_host
from app.providers.platforms.local.plan import make_plan
from app.providers.platforms.local.supervisor import Supervisor


def main(engines_file: str, data_dir: str) -> None:
    configure_logging(level="error")
    host = load_local_host(
        engines_file=Path(engines_file),
        data_dir=Path(data_dir),
        node_id="nod_test",
        advertise_host="127.0.0.1",
        environment={"PATH": os.defpath},
    )
    forked: list[int] = []
    _say("ready")
    for line in sys.stdin:
        if not line.strip():
            _say(*(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in forked))
            forked.clear()
            continue
        verb, token, point = line.split()
        pid = os.fork()
        if pid == 0:
            _do(host, verb, token, None if point == "-" else point)
        forked.append(pid)
        _say(pid)


def _do(host: LocalHost, verb: str, token: str, point: str | None) -> None:
    try:
        crash.arm(point)
        if verb == "create":
            Supervisor(host).create(token, make_plan(host, DeploymentSpec("bot", "toy")))
        else:
            Supervisor(host).change(token, lambda sight: replace(sight.record, wanted=Wanted.STOPPED))
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(3)


def _say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
