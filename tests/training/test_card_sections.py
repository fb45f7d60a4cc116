"""The card: its metadata is what the Hub reads, and its tables say what each task is."""

from __future__ import annotations

from huggingface_hub import ModelCard

import generalist
from generalist.training.card_sections import interface, with_model_index

CARD = "---\nlibrary_name: transformers\ntags: [generalist]\n---\n\n# mine\n\nwords\n"


def results(card: str) -> dict[tuple[str, str | None], float]:
    """By task and suite, as huggingface_hub itself reads them."""
    found = ModelCard(card, ignore_metadata_errors=False).data
    assert found.model_name == "mine"
    return {(r.dataset_type, r.dataset_config): r.metric_value for r in found.eval_results}


def test_the_hub_reads_the_scores_and_a_new_one_replaces_its_own():
    card = with_model_index(CARD, {"gym/A": {"normalized": 0.5, "suite": "one", "mean": 3.0}})
    card = with_model_index(card, {"gym/A": {"normalized": 0.25, "suite": "two"}})
    card = with_model_index(
        card, {"gym/A": {"normalized": 0.75, "suite": "one"}, "gym/B": {"normalized": -0.123456}}
    )
    assert results(card) == {
        ("gym/A", "one"): 0.75, ("gym/A", "two"): 0.25, ("gym/B", None): -0.1235,
    }  # fmt: skip
    assert card.endswith("\n\n# mine\n\nwords\n") and "library_name: transformers" in card


def test_without_normalised_scores_or_metadata_nothing_changes():
    assert with_model_index(CARD, {"text/pydoc": {"bits_per_byte": 2.0}}) == CARD
    assert with_model_index("# mine\n", {"gym/A": {"normalized": 0.5}}) == "# mine\n"


def test_inputs_and_outputs_are_those_of_the_layouts(without_frames):
    env = generalist.make("gym/Pendulum-v1")
    layout = without_frames.layout(env.observation_space, env.action_space)
    text = interface({"gym/Pendulum-v1": layout, "text/pydoc": without_frames.document_layout()})
    seen, done = "`observation`: float32 3, 3 tokens", "`action`: float32 1, 1 token"
    assert f"| `gym/Pendulum-v1` | {seen} | {done} |" in text.splitlines()
    assert "| `text/pydoc` |  | text |" in text.splitlines()
