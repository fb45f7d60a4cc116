"""The score of a task of documents: bits per byte, beside two models that are no networks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from generalist.errors import GeneralistError
from generalist.evaluation.text import (
    ByteTrigram,
    model_bits_per_byte,
    utf8_bytes,
    xz_bits_per_byte,
)

if TYPE_CHECKING:
    from generalist.acting.agent import Agent

SAMPLE_PROMPT = "Return a list of the"


def score_documents(agent: Agent, task: str, sample_tokens: int = 120) -> dict[str, Any]:
    """Bits per byte of held-out documents for the agent's model, a byte trigram and `xz -9`.

    The trigram is fitted on the task's training documents, and xz reads them first.

    Args:
        agent: of any task; its model is scored.
        task: of documents.
        sample_tokens: length of the sample of text.

    Returns:
        JSON-able: bits per byte of the three, counts of documents and bytes, and a sample.

    Raises:
        GeneralistError: the task has no held-out documents.
    """
    from generalist.acting.text import generate_text
    from generalist.envs.text import documents

    train, heldout = list(documents(task, "train")), list(documents(task, "heldout"))
    if not heldout:
        raise GeneralistError(f"{task} has no held-out documents to score.")
    return {
        "task": task,
        "checkpoint": agent.name,
        "bits_per_byte": model_bits_per_byte(
            agent.model, agent.processor, heldout, window_tokens=agent.window_tokens
        ),
        "trigram_bits_per_byte": ByteTrigram(train).bits_per_byte(heldout),
        "xz_bits_per_byte": xz_bits_per_byte(train, heldout),
        "documents": len(heldout),
        "heldout_bytes": utf8_bytes(heldout),
        "train_bytes": utf8_bytes(train),
        "prompted": False,
        "sample_prompt": SAMPLE_PROMPT,
        "sample": generate_text(agent, SAMPLE_PROMPT, max_tokens=sample_tokens),
    }
