"""The access log never holds anybody up, and never mixes the lines of two processes."""

from __future__ import annotations

import io
import json
import os
import threading
from typing import Any, cast

import pytest

from app.domain.usage import Outcome
from app.http1.exchange import Exchange
from app.proxy.access import AccessLog, _pieces
from app.proxy.call import Call

GUARD_SECONDS = 30.0


class Ended:
    """What a call's end reads of its exchange."""

    method = "POST"
    peer = "192.0.2.1"
    started_at = 0.0
    request_bytes = 10
    response_bytes = 20


def call(**more: Any) -> Call:
    made = Call(cast("Exchange", Ended()), "chat_completions", "req_1", None, None)
    for name, value in more.items():
        setattr(made, name, value)
    return made


def test_a_line_holds_what_is_known_and_nothing_else() -> None:
    stream = io.BytesIO()
    log = AccessLog(stream)
    log.write(call(status_code=404, outcome=Outcome.REFUSED, error_code="model_not_found", model="x" * 999))
    log.close(timeout_seconds=GUARD_SECONDS)
    line = json.loads(stream.getvalue())
    assert line.pop("total_ms") > 0
    assert line.pop("time").endswith("Z")
    assert line == {
        "request_id": "req_1",
        "method": "POST",
        "endpoint": "chat_completions",
        "status_code": 404,
        "outcome": "refused",
        "request_bytes": 10,
        "response_bytes": 20,
        "peer": "192.0.2.1",
        "error_code": "model_not_found",
        "model": "x" * 200,
    }


def test_a_pipe_that_nobody_reads_costs_lines_and_no_time() -> None:
    reader, writer = os.pipe()
    with os.fdopen(writer, "wb", buffering=0) as stream, os.fdopen(reader, "rb") as source:
        log = AccessLog(stream, pending_bytes=300_000)
        for _ in range(5_000):
            log.write(call())
        log.flush()
        assert log.dropped > 0
        kept = 5_000 - log.dropped
        lines: list[bytes] = []
        reading = threading.Thread(target=lambda: lines.extend(source.readline() for _ in range(kept)))
        reading.start()
        log.close(timeout_seconds=GUARD_SECONDS)
        reading.join(GUARD_SECONDS)
        assert len([json.loads(line) for line in lines]) == kept


def test_a_stream_that_was_closed_is_no_error() -> None:
    stream = io.BytesIO()
    log = AccessLog(stream)
    stream.close()
    log.write(call())
    log.close()


@pytest.mark.parametrize("sizes", [[10], [4096, 4096], [3000, 1096, 1], [5000, 10], [1] * 5000])
def test_lines_are_written_whole_and_in_pieces_that_a_pipe_takes_at_once(sizes: list[int]) -> None:
    lines = [b"x" * (size - 1) + b"\n" for size in sizes]
    pieces = _pieces(lines)
    assert b"".join(pieces) == b"".join(lines)
    assert all(piece.endswith(b"\n") for piece in pieces)
    assert all(len(piece) <= 4096 or piece.count(b"\n") == 1 for piece in pieces)


def test_without_a_stream_nothing_is_kept() -> None:
    log = AccessLog(None)
    log.write(call())
    log.flush()
    log.close()
    assert log.dropped == 0
