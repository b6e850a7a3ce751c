"""The teacher's answers on disk: shards of rows, found by what the teacher was given for them."""

from .answer import Answer
from .encoded_rows import EncodedRows
from .folder import CacheFolder
from .full import Full
from .heads import write_heads
from .manifest import write_manifest
from .plan import Plan
from .row_id import has_decoder, row_ids, row_lengths, token_count
from .sampled import Sampled
from .shard import DamagedCacheError
from .shard_writer import ShardWriter
from .store import AnswerStore
from .top_k import TopK

__all__ = [
    "Answer",
    "AnswerStore",
    "CacheFolder",
    "DamagedCacheError",
    "EncodedRows",
    "Full",
    "Plan",
    "Sampled",
    "ShardWriter",
    "TopK",
    "has_decoder",
    "row_ids",
    "row_lengths",
    "token_count",
    "write_heads",
    "write_manifest",
]
