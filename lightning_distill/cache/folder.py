"""A folder that a cache is written into: by one run at a time, which may be killed at any time."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.filesize import decimal

from ..models.head import Head
from .heads import write_heads
from .lock import FolderLock
from .manifest import MANIFEST, write_manifest
from .plan import check_same, PLAN, Plan
from .shard import DamagedCacheError, whole_shard

OTHER = "Name another folder (job.folder=DIR, teacher.folder=DIR), or remove this one."


class CacheFolder:
    """The files of a cache on their way.

    Args:
        path: of the folder; made if it is not there.
    """

    def __init__(self, path: Path):
        self.path = path
        self.plan: Plan | None = None
        self._lock = FolderLock(path)
        self._heads: dict[str, Any] | None = None
        self._indexed: list[dict[str, Any]] | None = None

    def open(self, wanted: Callable[[Plan], Mapping[str, Any]], plan: Plan | None = None) -> None:
        """Lock the folder, see that what it holds is what is wanted, and write the plan.

        Args:
            wanted: from the plan that is there to how the answers are to be made, as
                `check_same` takes it.
            plan: what is written; `None` if that is decided with the first rows, see `begin`.

        Raises:
            ValueError: if another process writes into it, if it holds other answers, or if there is
                no room for all that are to come.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock.acquire()
        try:
            self.plan = self._planned(known=plan is not None)
            if self.plan is not None:
                check_same(self.path, self.plan.parts(), wanted(self.plan), OTHER)
            for part in self.path.glob(".*.part"):
                # Left by a killed process.
                part.unlink()
            if plan is not None:
                self._check_room(plan)
                self.begin(plan)
        except BaseException:
            self.close()
            raise

    def begin(self, plan: Plan) -> None:
        """Write what will be kept."""
        plan.write(self.path)
        self.plan = plan

    def close(self) -> None:
        """Let others write."""
        self._lock.release()

    def whole(self, name: str, plan: Plan) -> dict[str, Any] | None:
        """The facts of a shard that was written whole; `None` if it is to be written.

        Args:
            name: of the file, without its ending.
            plan: by which it was written.
        """
        return whole_shard(self.path / f"{name}.safetensors", plan.signature)

    def index(self, head_of: Callable[[str], Head]) -> None:
        """Make a cache of all shards that are whole; the others are removed.

        Args:
            head_of: from a path to the teacher's head.
        """
        if self.plan is None:
            return
        known = {facts["file"]: facts for facts in self._indexed or ()}
        shards = []
        for path in sorted(self.path.glob("shard-*.safetensors")):
            facts = known.get(path.name) or self.whole(path.stem, self.plan)
            if facts is None:
                # Its rows are asked of the teacher again.
                path.unlink()
            else:
                shards.append(facts)
        planned = self.plan.data.get("shards", len(shards))
        if len(shards) != planned:
            raise ValueError(
                f"{planned - len(shards)} of {planned} files were not written into {self.path}. "
                "Give the same command again."
            )
        if shards != self._indexed:
            if self._heads is None:
                heads = {path: head_of(path) for path in self.plan.heads}
                self._heads = write_heads(self.path, heads)
            write_manifest(self.path, self.plan.about, self.plan.answers, shards, self._heads)
            self._indexed = shards

    def _planned(self, known: bool) -> Plan | None:
        """The plan of the folder as it is; `None` if there is none, or a damaged one is `known`."""
        try:
            plan = Plan.read(self.path)
        except DamagedCacheError as error:
            if known:
                # The plan of now is written; shards of another are known by their signature.
                return None
            raise DamagedCacheError(
                f"{self.path / PLAN} is damaged, and it is not known whose answers are beside it. "
                f"{OTHER}"
            ) from error
        if plan is None and self._holds_a_cache():
            raise ValueError(
                f"{self.path} holds a cache without its {PLAN}, and it is not known whose answers "
                f"these are. {OTHER}"
            )
        return plan

    def _holds_a_cache(self) -> bool:
        return (self.path / MANIFEST).is_file() or any(self.path.glob("shard-*"))

    def _check_room(self, plan: Plan) -> None:
        written = sum(p.stat().st_size for p in self.path.glob("shard-*.safetensors"))
        free = shutil.disk_usage(self.path).free
        if plan.bytes - written > free:
            raise ValueError(
                f"About {decimal(plan.bytes - written)} are to be written into {self.path}, and "
                f"{decimal(free)} are free. Make room, name another folder (job.folder=DIR), or "
                "keep less: job.logits=top_k, job.dtype=float16, job.hidden_dtype=float8."
            )
