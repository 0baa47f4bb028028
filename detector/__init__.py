"""Pixels to evidence: what a file shows, and the verdict drawn from all evidence together."""
