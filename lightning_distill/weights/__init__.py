"""Weights of samples that depend on the logits, for `SampleWeighted` around any criterion.

Each is a module, called as `weight(student, teacher, mask)` on logits (*batch, classes), that
returns one weight per sample (*batch), not negative.
"""

from .focal import Focal
from .teacher_confidence import TeacherConfidence

__all__ = ["Focal", "TeacherConfidence"]
