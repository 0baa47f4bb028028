"""Bytes and claims to proof: marks, signatures, consent, ledger; needs no GPU and no network."""

__version__ = "0.1.0"
