"""The episodes that a run learns from, kept as shards.

Two rules make the folder hold each episode once, however often the run is interrupted:
1. What ended before a checkpoint is on the disk before the checkpoint is.
2. An episode whose seed is there already is not written again. A resumed run plays again what ended
   after its checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from generalist.errors import UsageError
from generalist.shards.manifest import DatasetHeader
from generalist.shards.shards import SHARD_TOKENS, EncodedEpisode, ShardWriter
from generalist.training.ranks import Ranks

Episodes = list[tuple[str, EncodedEpisode]]  # each with the name of its task


class Recorder:
    """Writes the episodes of all ranks; the main process holds the files. All ranks call together.

    Args:
        root: folder of the dataset; each task has a folder below it.
        headers: of the tasks, by name.
        run: what tells this run from others.
        ranks: the processes of the run.

    Raises:
        UsageError: a folder holds the episodes of something else.
        GeneralistError: a folder cannot be written to.
    """

    def __init__(
        self, root: Path, headers: Mapping[str, DatasetHeader], *, run: str, ranks: Ranks
    ) -> None:
        self._root, self._run, self._ranks = root, run, ranks
        self._pending: Episodes = []
        self._tokens = 0  # pending in this process
        self._writers: dict[str, ShardWriter] = {}  # of the main process
        ranks.on_main(lambda: self._open(headers))

    def _open(self, headers: Mapping[str, DatasetHeader]) -> None:
        try:
            for task, header in headers.items():
                made = {**header.collection, "run": self._run}
                writer = ShardWriter(self._root / task, replace(header, collection=made))
                self._writers[task] = writer
                if (other := writer.header.collection.get("run")) != self._run:
                    raise UsageError(
                        f"{writer.folder} holds episodes of {other or 'another making'}, not of "
                        f"this run ({self._run}). Record into another folder."
                    )
        except BaseException:
            self.close()
            raise

    def add(self, episodes: Sequence[tuple[str, EncodedEpisode]]) -> None:
        """Keep finished episodes, each with its task; writes them when they fill a shard."""
        self._pending += episodes
        self._tokens += sum(len(episode.tokens) for _, episode in episodes)
        if self._ranks.sum([self._tokens])[0] >= SHARD_TOKENS:
            self.save()

    def save(self) -> None:
        """Write what was added; it is on the disk when this returns.

        Raises:
            GeneralistError: it cannot be written, such as for lack of room; on all ranks.
        """
        everyone = self._ranks.gather(self._pending)
        self._ranks.on_main(lambda: self._write([pair for part in everyone for pair in part]))
        self._pending, self._tokens = [], 0

    def _write(self, episodes: Episodes) -> None:
        for task, episode in episodes:
            writer = self._writers[task]
            if episode.record["seed"] not in writer.seeds:
                writer.add(episode)
        for writer in self._writers.values():
            writer.flush()

    def close(self) -> None:
        """Let go of the folders. What was not saved is played again when the run is resumed."""
        for writer in self._writers.values():
            writer.close()
        self._writers = {}
