"""What on-policy distillation asks of models, terms and tokens."""

from typing import Any

from ..models.embeddings import generates


def check_writers(module: Any) -> None:
    """Refuse models that cannot write, and terms that learn nothing from what is written."""
    if not module.writers:
        return
    teacher = module.taught_by
    if teacher is not None and not teacher.is_live:
        raise ValueError(
            f"The teacher is a {type(module.teacher).__name__}, which keeps answers to the texts "
            "of the data, and here texts are made anew in every step. Use a live teacher "
            "(teacher=pretrained), or set student_fraction=0 and teacher_fraction=0."
        )
    for writer in module.writers:
        model = module.model_of(writer)
        if model is None:
            raise ValueError("teacher_fraction is above 0, but `teacher` is None.")
        if not generates(model):
            raise ValueError(
                f"The {writer} is a {type(model).__name__} and cannot generate; it must be a "
                "causal language model of transformers, as "
                f"{writer}.auto_class=AutoModelForCausalLM gives it."
            )
    if "student" in module.writers and not module.objective.sources("teacher"):
        raise ValueError(
            "No term reads the teacher, so the student would learn nothing from its own texts: "
            "add one, such as fused_linear_divergence, or set student_fraction=0."
        )
    for name, term in dict[str, Any](module.objective.terms.items()).items():
        if term.criterion.shift_labels:
            raise ValueError(
                f"Term {name!r} has shift_labels=true, and labels here are the tokens that "
                "follow already: set its criterion's shift_labels to false."
            )


def check_ends(module: Any) -> None:
    """Refuse texts of which nobody knows the end."""
    ends, known = module.ends(), module.shared_vocabulary()
    if not ends:
        raise ValueError(
            "It is not known which token ends a text: neither the data's tokenizer nor the "
            "student's configuration has an eos_token_id. Set eos_token_id."
        )
    for token in (*ends, module.pad()):
        if not 0 <= token < known:
            raise ValueError(
                f"Token {token}, which ends a text or fills it up, is not among the {known} "
                "that student and teacher know. Set eos_token_id and pad_token_id to those of "
                "the tokenizer."
            )
