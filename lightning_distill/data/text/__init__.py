"""Rows of text with a label."""
