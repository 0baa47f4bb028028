"""Pixels to pixels: faces found, described, warped and composed; one file writes finished media."""
