"""Digests: which texts are one, and which bytes are its."""

import doctest
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.oci import digest as module
from mirror.oci.digest import ALGORITHMS, Digest
from mirror.oci.errors import DigestInvalid

from .attempts import attempt

HEX = "0123456789abcdef"
valid = st.sampled_from(sorted(ALGORITHMS)).flatmap(
    lambda name: st.text(HEX, min_size=ALGORITHMS[name], max_size=ALGORITHMS[name]).map(
        lambda digits: f"{name}:{digits}"
    )
)
EMPTY = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_the_examples_in_the_docstrings_hold():
    assert doctest.testmod(module).failed == 0


@given(valid)
def test_a_valid_digest_is_written_as_it_was_read(text):
    assert str(Digest.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "sha256",
        "sha256:",
        "sha256:" + "a" * 63,
        "sha256:" + "a" * 65,
        "sha256:" + "A" * 64,
        "sha256:" + "g" * 64,
        "sha512:" + "a" * 64,
        "sha256:" + "a" * 128,
        "SHA256:" + "a" * 64,
        "md5:" + "a" * 32,
        "sha384:" + "a" * 96,
        "blake3:" + "a" * 64,
        EMPTY + "\n",
        " " + EMPTY,
        EMPTY[:-1] + "\u0665",  # an Arabic five: a digit to str.isdigit, not here
        "sha256:../../" + "a" * 58,
        "sha256:sha256:" + "a" * 57,
        "sha256+b64:" + "a" * 64,
    ],
)
def test_what_is_no_digest_is_refused(text):
    with pytest.raises(DigestInvalid):
        Digest.parse(text)


@pytest.mark.parametrize("text", ["latest", "sha256:abc"])
def test_a_refusal_shows_what_was_written(text):
    with pytest.raises(DigestInvalid, match=f"^'{text}' is no digest"):
        Digest.parse(text)


@pytest.mark.parametrize(
    ("algorithm", "hexadecimal"),
    [("md5", "a" * 32), ("sha256", "../" * 21 + "a"), ("sha512", "a" * 64), ("", "")],
)
def test_no_other_digest_can_be_made_by_the_constructor(algorithm, hexadecimal):
    with pytest.raises(DigestInvalid):
        Digest(algorithm, hexadecimal)


@given(st.text(max_size=200))
def test_any_text_is_a_digest_or_is_refused(text):
    found = attempt(DigestInvalid, Digest.parse, text)
    if isinstance(found, DigestInvalid):
        assert found.message.isprintable()
    else:
        assert str(found) == text


@given(valid, st.integers(0, 200), st.characters())
def test_one_changed_character_makes_another_digest_or_none(text, place, character):
    changed = text[:place] + character + text[place + 1 :]
    same = attempt(DigestInvalid, Digest.parse, changed) == Digest.parse(text)
    assert same == (changed == text)


@given(st.binary(max_size=200), st.sampled_from(sorted(ALGORITHMS)))
def test_a_digest_matches_the_bytes_it_is_of_and_no_others(data, algorithm):
    digest = Digest.of(data, algorithm)
    hasher = digest.hasher()
    hasher.update(data)
    assert digest.matches(data)
    assert not digest.matches(data + b"\0")
    assert hasher.hexdigest() == digest.hex == hashlib.new(algorithm, data).hexdigest()


def test_sha256_is_what_digests_are_made_with_unless_told():
    assert str(Digest.of(b"")) == EMPTY
