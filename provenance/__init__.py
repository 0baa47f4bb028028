"""Bytes and claims to proof: marks, signatures, consent, ledger; needs no GPU and no network."""
