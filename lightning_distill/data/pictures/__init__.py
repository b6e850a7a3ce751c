"""Rows of one picture with a label."""
