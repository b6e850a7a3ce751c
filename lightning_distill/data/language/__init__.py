"""Documents for language models."""
