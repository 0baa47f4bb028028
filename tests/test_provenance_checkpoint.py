"""Signed notes and checkpoints: known vectors of other implementations, and every way to break one."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from provenance.checkpoint import (
    Signer,
    Verifier,
    key_name,
    open_checkpoint,
    open_note,
    sign_checkpoint,
    sign_note,
)
from provenance.errors import InputError, SignatureError

SIGNER = Signer("Example-Lab/ledger", Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
ROOT = bytes(range(32))

# The example of Go's golang.org/x/mod/sumdb/note, and one of another implementation of C2SP signed-note.
VECTORS = [
    (
        "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "If you think cryptography is the answer to your problem,\n"
        "then you don't know what your problem is.\n\n"
        "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6Ry"
        "yBwJnAM=\n",
    ),
    (
        "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
        "This is an example message.\n\n"
        "— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu"
        "72IneyaQM=\n",
    ),
]


@pytest.mark.parametrize(("key", "note"), VECTORS)
def test_notes_of_other_implementations_open(key: str, note: str) -> None:
    verifier = Verifier.from_text(key)
    assert verifier.text == key
    assert open_note(note, verifier) == note.split("\n\n", maxsplit=1)[0] + "\n"


def test_a_checkpoint_has_the_form_of_tlog_checkpoint() -> None:
    note = sign_checkpoint(7, ROOT, SIGNER)
    lines = note.split("\n")
    assert lines[:4] == ["Example-Lab/ledger", "7", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", ""]
    assert lines[4].startswith("— Example-Lab/ledger ")
    assert note.endswith("\n")
    found = open_checkpoint(note, Verifier.from_text(SIGNER.verifier.text))
    assert (found.origin, found.size, found.root) == ("Example-Lab/ledger", 7, ROOT)


def test_signatures_of_witnesses_are_left_aside() -> None:
    witness = Signer("witness.example", Ed25519PrivateKey.generate())
    note = sign_checkpoint(7, ROOT, SIGNER)
    text = note.split("\n\n", maxsplit=1)[0] + "\n"
    both = note + sign_note(text, witness).split("\n\n", maxsplit=1)[1]
    assert open_checkpoint(both, SIGNER.verifier).size == 7
    assert open_note(both, witness.verifier) == text


def broken_notes() -> list[str]:
    note = sign_checkpoint(7, ROOT, SIGNER)
    other = Signer(SIGNER.name, Ed25519PrivateKey.generate())
    return [
        "",
        "\n\n",
        note.replace("\n7\n", "\n8\n"),
        note.replace("AAEC", "BBEC"),
        note[:-1],
        note.replace("— ", "- "),
        note.replace("— Example", "— Sample"),
        note[:-6] + "AAAA=\n",
        note[:-6] + "A\n",
        note + "not a signature\n",
        note + "\n",
        sign_checkpoint(7, ROOT, other),
        sign_note("another origin\n7\nAAAA\n", SIGNER),
        sign_note("Example-Lab/ledger\n07\nAAAA\n", SIGNER),
        sign_note("Example-Lab/ledger\n-1\nAAAA\n", SIGNER),
        sign_note("Example-Lab/ledger\n7\nAAAA\n", SIGNER),
        sign_note("Example-Lab/ledger\n7\n!!!\n", SIGNER),
        sign_note("Example-Lab/ledger\n7\n", SIGNER),
        "x" * 70_000 + "\n" + note,
    ]


@pytest.mark.parametrize("number", range(len(broken_notes())))
def test_a_broken_checkpoint_is_a_signature_error(number: int) -> None:
    with pytest.raises(SignatureError, match="checkpoint_signature"):
        open_checkpoint(broken_notes()[number], SIGNER.verifier)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "name",
        "name+00000000+AAAA",
        "name+00000000+!!!",
        "name+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "PeterNeumann+c74f20a3+AhpC2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
    ],
)
def test_a_text_that_is_no_key_is_an_input_error(text: str) -> None:
    with pytest.raises(InputError, match="verifier_key"):
        Verifier.from_text(text)


def test_key_names_hold_what_a_note_allows() -> None:
    assert key_name("  Example  Lab + Sons ") == "Example-Lab-Sons/ledger"
    with pytest.raises(InputError, match=r"ledger\.name"):
        Signer("Example Lab", SIGNER.private_key)
