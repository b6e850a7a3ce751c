"""Rows of a source and the text that is to be written from it."""
