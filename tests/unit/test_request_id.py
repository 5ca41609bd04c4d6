"""A client's request id is kept only when it is fit for a log line and a header."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.kit.request_id import sane_client_id


@pytest.mark.parametrize("sane", [b"a", b"trace-1/a:b", b"00-4bf92f3577b34da6a3ce929d0e0e4736-01", b"x" * 128])
def test_usual_ids_are_kept(sane: bytes) -> None:
    assert sane_client_id(sane) == sane.decode()


@given(st.none() | st.binary(max_size=200))
def test_whatever_is_kept_is_short_plain_text(raw: bytes | None) -> None:
    kept = sane_client_id(raw)
    if kept is not None:
        assert kept.encode() == raw
        assert 0 < len(kept) <= 128
        assert kept.isascii()
        assert kept.isprintable()
        assert not set(kept) & set(' "<>\\{}\n')
