"""Sealed values open only where they were made; keys are refused by their form alone when they are junk."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.kit.secrets import KEY_LENGTH, Keyring, Place, UnsealError, key_digest, new_api_key, parse_api_key
from app.settings import MasterKey

_OLD, _NEW = ("k1", b"a-master-key-of-exactly-32-bytes"), ("k2", b"another-master-key-with-32-bytes")
_PLACE = Place("credentials", "ten_a", "connections", "con_a", "credentials_sealed")


@pytest.mark.parametrize(
    "elsewhere",
    [
        replace(_PLACE, purpose="service-key"),
        replace(_PLACE, tenant_id="ten_b"),
        replace(_PLACE, tenant_id=None),
        replace(_PLACE, table="deployments"),
        replace(_PLACE, row_id="con_b"),
        replace(_PLACE, column="other_sealed"),
        replace(_PLACE, table="connectionsc", row_id="on_a"),  # the same letters, cut elsewhere
    ],
)
def test_a_sealed_value_does_not_open_in_another_place(elsewhere: Place) -> None:
    keyring = Keyring([_NEW])
    sealed = keyring.seal(b"secret", _PLACE)
    assert keyring.unseal(sealed, _PLACE) == b"secret"
    with pytest.raises(UnsealError):
        keyring.unseal(sealed, elsewhere)


def test_the_newest_master_key_seals_and_every_known_one_opens() -> None:
    before, during, after = Keyring([_OLD]), Keyring([_NEW, _OLD]), Keyring([_NEW])
    old, new = before.seal(b"secret", _PLACE), during.seal(b"secret", _PLACE)
    assert during.unseal(old, _PLACE) == during.unseal(new, _PLACE) == after.unseal(new, _PLACE) == b"secret"
    with pytest.raises(UnsealError, match="k1"):
        after.unseal(old, _PLACE)


def test_the_same_secret_is_never_sealed_to_the_same_bytes() -> None:
    keyring = Keyring([_NEW])
    assert keyring.seal(b"secret", _PLACE) != keyring.seal(b"secret", _PLACE)


@given(plain=st.binary(max_size=200), position=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_changed_bit_anywhere_is_noticed(plain: bytes, position: int, bit: int) -> None:
    keyring = Keyring([_NEW, _OLD])
    changed = bytearray(keyring.seal(plain, _PLACE))
    changed[position % len(changed)] ^= 1 << bit
    with pytest.raises(UnsealError):
        keyring.unseal(bytes(changed), _PLACE)


@given(st.binary(max_size=80))
def test_bytes_that_were_never_sealed_are_refused_and_break_nothing(sealed: bytes) -> None:
    for found in (sealed, b"\x01" + sealed, b"\x01\x02k2" + sealed):
        with pytest.raises(UnsealError):
            Keyring([_NEW]).unseal(found, _PLACE)


def test_no_representation_shows_a_key() -> None:
    key = new_api_key()
    shown = repr((Keyring([_NEW]), key, MasterKey(*_NEW)))
    assert _NEW[1].decode() not in shown
    assert base64.b64encode(_NEW[1]).decode() not in shown
    assert key.text not in shown


def test_a_new_key_has_its_form_and_is_recognised() -> None:
    key = new_api_key()
    assert key.text.startswith("mp_")
    assert len(key.text) == KEY_LENGTH
    assert parse_api_key(key.text) == key
    assert key.text.startswith(key.display_prefix)


@given(position=st.integers(0, KEY_LENGTH - 1), character=st.characters(codec="utf-8"))
def test_a_key_with_one_other_character_is_junk(position: int, character: str) -> None:
    text = new_api_key().text
    changed = text[:position] + character + text[position + 1 :]
    assert changed == text or parse_api_key(changed) is None


@given(st.text(max_size=100))
def test_any_text_is_either_a_key_or_junk_and_breaks_nothing(text: str) -> None:
    assert parse_api_key(text) is None
    assert parse_api_key("mp_" + text) is None


def test_the_stored_hash_depends_on_the_whole_key_and_on_the_pepper() -> None:
    key = new_api_key().text
    other_end = key[:-1] + ("a" if key[-1] != "a" else "b")
    digests = {key_digest(b"one", key), key_digest(b"two", key), key_digest(b"one", other_end)}
    assert len(digests) == 3
    assert {len(digest) for digest in digests} == {32}
