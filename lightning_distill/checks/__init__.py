"""What is looked at before a training: one kind of check per file."""

from .finding import Finding, Findings, Level

__all__ = ["Finding", "Findings", "Level"]
