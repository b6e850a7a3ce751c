"""Models of plain linear layers that can be made narrower: where their heads and neurons are."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from ..models.configuration import configured


@dataclass(frozen=True)
class Attention:
    """One attention of a layer, by the paths of its linear layers within that layer.

    Attributes:
        queries: gives the heads of the queries; where `fused`, keys and values behind them.
        others: give keys and values.
        out: reads the heads.
        fused: whether one linear layer gives all three.
        table: an embedding with a column for each head that the first layer holds for all, so that
            a head has the same number in every layer.
    """

    queries: str
    others: tuple[str, ...]
    out: str
    fused: bool = False
    table: str | None = None


@dataclass(frozen=True)
class FeedForward:
    """The feed-forward part of a layer, by the paths of its linear layers within that layer.

    Attributes:
        into: give the neurons: one, or two where one is the gate of the other.
        out: reads them.
        halves: whether one linear layer gives both, one behind the other.
    """

    into: tuple[str, ...]
    out: str
    halves: bool = False


@dataclass(frozen=True)
class Family:
    """What must be known of a family of models; all else is seen in the shapes of its weights.

    Attributes:
        kinds: what configurations call it (`model_type`).
        width: the field of the configuration for the hidden width.
        heads: that for the heads of the queries.
        intermediate: that for the neurons; `None` in it stands for four times the width.
        attentions: those that a layer may have.
        feed_forwards: those that a layer may have.
        key_values: the field for the heads of keys and values, where they are counted apart.
        head_size: the field for the size of a head; without one a head is the width divided by the
            number of heads, so that both are cut together.
        transposed: whether the weights of linear layers are stored input first.
    """

    kinds: tuple[str, ...]
    width: str
    heads: str
    intermediate: str
    attentions: tuple[Attention, ...]
    feed_forwards: tuple[FeedForward, ...]
    key_values: str | None = None
    head_size: str | None = None
    transposed: bool = False

    @property
    def tied(self) -> bool:
        """Whether the width is always the number of heads times the size that a head has."""
        return self.head_size is None


USUAL = ("hidden_size", "num_attention_heads", "intermediate_size")


def _separate(path: str, q: str, k: str, v: str, out: str) -> tuple[Attention, ...]:
    return (Attention(f"{path}.{q}", (f"{path}.{k}", f"{path}.{v}"), out),)


_PROJECTIONS = ("q_proj", "k_proj", "v_proj")
_T5 = ("layer.0.SelfAttention", "layer.1.EncDecAttention")
FAMILIES = (
    Family(
        ("bert", "roberta", "xlm-roberta"),
        *USUAL,
        _separate("attention.self", "query", "key", "value", "attention.output.dense"),
        (FeedForward(("intermediate.dense",), "output.dense"),),
    ),
    Family(
        ("distilbert",),
        *("dim", "n_heads", "hidden_dim"),
        _separate("attention", "q_lin", "k_lin", "v_lin", "attention.out_lin"),
        (FeedForward(("ffn.lin1",), "ffn.lin2"),),
    ),
    Family(
        ("modernbert",),
        *USUAL,
        (Attention("attn.Wqkv", (), "attn.Wo", fused=True),),
        (FeedForward(("mlp.Wi",), "mlp.Wo", halves=True),),
    ),
    Family(
        ("gpt2",),
        *("n_embd", "n_head", "n_inner"),
        (Attention("attn.c_attn", (), "attn.c_proj", fused=True),),
        (FeedForward(("mlp.c_fc",), "mlp.c_proj"),),
        transposed=True,
    ),
    Family(
        ("llama", "qwen2", "qwen3"),
        *USUAL,
        _separate("self_attn", *_PROJECTIONS, "self_attn.o_proj"),
        (FeedForward(("mlp.gate_proj", "mlp.up_proj"), "mlp.down_proj"),),
        key_values="num_key_value_heads",
        head_size="head_dim",
    ),
    Family(
        ("t5", "mt5"),
        *("d_model", "num_heads", "d_ff"),
        (
            Attention(
                *(f"{_T5[0]}.q", (f"{_T5[0]}.k", f"{_T5[0]}.v"), f"{_T5[0]}.o"),
                table=f"{_T5[0]}.relative_attention_bias",
            ),
            *_separate(_T5[1], "q", "k", "v", f"{_T5[1]}.o"),
        ),
        tuple(
            FeedForward(
                tuple(f"layer.{i}.DenseReluDense.{name}" for name in ("wi", "wi_0", "wi_1")),
                f"layer.{i}.DenseReluDense.wo",
            )
            for i in (1, 2)
        ),
        head_size="d_kv",
    ),
    Family(
        ("vit", "deit"),
        *USUAL,
        _separate("attention", *_PROJECTIONS, "attention.o_proj"),
        (FeedForward(("mlp.fc1",), "mlp.fc2"),),
    ),
)
BY_KIND: Mapping[str, Family] = {kind: family for family in FAMILIES for kind in family.kinds}


def family_of(model: nn.Module) -> Family:
    """The family that a model is of.

    Raises:
        ValueError: if it is of none of the table, naming those that are.
    """
    kind = str(configured(model, "model_type") or "")
    if kind not in BY_KIND or not hasattr(model, "base_model_prefix"):
        raise ValueError(
            f"student=pruned makes models of these kinds narrower: {', '.join(sorted(BY_KIND))}; "
            f"the teacher is a {type(model).__name__}{f' ({kind})' if kind else ''}. Take "
            "student=from_teacher, which leaves whole layers out of any model of transformers."
        )
    return BY_KIND[kind]
