"""Episodes to what a shard holds."""

from __future__ import annotations

from generalist.episode import Episode
from generalist.shards.shards import EncodedEpisode
from generalist.tokenization.layout import Layout
from generalist.tokenization.processor import GeneralistProcessor


def encode_episode(
    episode: Episode, processor: GeneralistProcessor, layout: Layout, source: str = "expert"
) -> EncodedEpisode:
    """Tokens, rewards, labels and record of an episode.

    Args:
        episode: observations, actions and rewards of T steps.
        processor: encodes it.
        layout: of a timestep of its task.
        source: who acted: `expert`, `dagger` (the agent acted, the expert labelled), `import`, ...

    Raises:
        GeneralistError: a value cannot be encoded; task, field and step are named.
    """
    labels = None if episode.labels is None else processor.encode_labels(episode, layout)
    record = {
        **episode.info,
        "terminated": episode.terminated,
        "truncated": episode.truncated,
        "instruction": episode.instruction,
        "source": source,
    }
    return EncodedEpisode(processor.encode(episode, layout), episode.rewards, labels, record)
