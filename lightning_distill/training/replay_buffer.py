"""Replay buffer: texts that the student generated before, to be learnt from again."""

import random
from collections import deque
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..models.generation import Text


class ReplayBuffer:
    """The last texts that were added, at most `size` of them, on the CPU.

    Off-policy reuse of a student's own texts is section 3.3 of Ko et al., *DistiLLM: Towards
    Streamlined Distillation for Large Language Models*, 2024, https://arxiv.org/abs/2402.03898.

    Args:
        size: how many texts it keeps; the oldest make room for new ones.
    """

    def __init__(self, size: int):
        self.size = size
        self.texts: deque[Text] = deque(maxlen=size)

    def __len__(self) -> int:
        return len(self.texts)

    def add(self, texts: Sequence[Text]) -> None:
        """Keep these; the oldest go."""
        for text in texts:
            self.texts.append(Text(text.tokens.to(torch.int32), text.prompt, text.ended))

    def draw(self, count: int, numbers: random.Random) -> list[Text]:
        """So many different texts by chance, or all if there are fewer."""
        return numbers.sample(list(self.texts), min(count, len(self)))

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps: all texts, the oldest first, in a few flat tensors."""
        texts = self.texts
        tokens = [text.tokens for text in texts]
        return {
            "tokens": torch.cat(tokens) if tokens else torch.zeros(0, dtype=torch.int32),
            "lengths": torch.tensor([len(t) for t in tokens], dtype=torch.int64),
            "prompts": torch.tensor([text.prompt for text in texts], dtype=torch.int64),
            "ended": torch.tensor([text.ended for text in texts], dtype=torch.bool),
        }

    def load(self, states: Sequence[dict[str, Any]], rank: int, ranks: int) -> None:
        """Go on from the states of all processes; if these were more or fewer, share them anew.

        Args:
            states: what `state` gave in each process.
            rank: number of this process.
            ranks: how many there are now.
        """
        each = [_texts(state) for state in states]
        if len(each) == ranks:
            mine = each[rank]
        else:
            mine = [text for texts in each for text in texts][rank::ranks]
        self.texts.clear()
        self.add(mine)


def _texts(state: dict[str, Any]) -> list[Text]:
    tokens = state["tokens"].split(state["lengths"].tolist())
    facts = zip(tokens, state["prompts"].tolist(), state["ended"].tolist(), strict=True)
    return [Text(*found) for found in facts]
