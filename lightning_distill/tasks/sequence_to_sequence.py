"""A text that is written from another text, or from speech."""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from ..models.batch import entry, labels_of
from ..models.source import Source
from .language_modelling import has_label, LABELLED, LanguageModelling


def both_sides(batch: Any) -> Tensor:
    """Which tokens of the source count for which labels; `(rows, targets, sources)`.

    Without an attention mask of the source, as of speech in frames, `(rows, targets, 1)`.
    """
    targets, sources = has_label(labels_of(batch)), entry(batch, "attention_mask")
    if not isinstance(sources, Tensor) or sources.dim() != 2:
        return targets.unsqueeze(2)
    return targets.unsqueeze(2) & (sources != 0).unsqueeze(1)


# Made of a whole batch.
BOTH_SIDES = Source("batch", "output", "", process=both_sides)


class SequenceToSequence(LanguageModelling):
    """Texts of an encoder-decoder: int64 `(rows, targets)`, each token of the text, or -100.

    The label of a place is the token that the decoder is to write there; what the decoder reads is
    made of the labels. Terms on logits and on the decoder count the tokens that have a label, terms
    on the encoder what is no padding of the source, and terms on cross-attention both.
    """

    name: ClassVar[str] = "sequence_to_sequence"
    heads: ClassVar[Mapping[str, str]] = {
        "ForConditionalGeneration": "AutoModelForSeq2SeqLM",
        "MTModel": "AutoModelForSeq2SeqLM",
        "EncoderDecoderModel": "AutoModelForSeq2SeqLM",
        "WhisperForConditionalGeneration": "AutoModelForSpeechSeq2Seq",
        "Speech2TextForConditionalGeneration": "AutoModelForSpeechSeq2Seq",
        "SpeechEncoderDecoderModel": "AutoModelForSpeechSeq2Seq",
    }
    peft_task: ClassVar[str | None] = "SEQ_2_SEQ_LM"
    metrics: ClassVar[tuple[str, ...]] = ("perplexity", "rouge", "agreement")
    processors: ClassVar[tuple[str, ...]] = ("tokenizer", "processor", "feature_extractor")
    reads_source: ClassVar[bool] = True

    def config_fields(self, default: Any) -> dict[str, Any]:
        """None: such a model knows its parts."""
        return {}

    def write_labels(self, config: Any, num_labels: int | None, names: Any = None) -> None:
        """Settle what a text begins and ends with: padding and the end, as T5 has it.

        Of the default vocabulary these are other tokens than of this one, or none.
        """
        super().write_labels(config, num_labels, names)
        config.decoder_start_token_id = config.pad_token_id
        for name in ("forced_bos_token_id", "forced_eos_token_id"):
            if getattr(config, name, None) is not None:
                setattr(config, name, None)
        for name in ("suppress_tokens", "begin_suppress_tokens"):
            if getattr(config, name, None) is not None:
                setattr(config, name, None)

    def layer_mask(self, batch: Any, source: Source) -> Source | None:
        """By the side that a layer is of: labels, the source's mask, or both."""
        if source.kind == "output" and source.name == "cross_attentions":
            return BOTH_SIDES
        # The first that is named: `decoder.layers.0.encoder_attn` is of the decoder.
        parts = source.name.replace("_", ".").split(".")
        sides = [part for part in parts if part in ("encoder", "decoder")]
        if sides[:1] == ["encoder"]:
            return self.padding(batch)
        return LABELLED if isinstance(labels_of(batch), Tensor) else None
