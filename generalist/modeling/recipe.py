"""The part of a training recipe that says which model: its sizes, or what it starts from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

from generalist.specs import shipped_checkpoint
from generalist.yaml_values import expand_home


def not_empty(value: str) -> str:
    """The value; raises ValueError where it is nothing."""
    if not value:
        raise ValueError("nothing is given; write a name or a path, or leave the key out")
    return value


Name = Annotated[str, AfterValidator(not_empty), AfterValidator(expand_home)]
"""A folder, where `~` is the home folder, or a name of something."""


def as_path(value: Any) -> Any:
    """A path, with `~` for the home folder."""
    return Path(expand_home(not_empty(value))) if isinstance(value, str) else value


Folder = Annotated[Path, BeforeValidator(as_path)]


class Section(BaseModel):
    """A part of the recipe; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", validate_default=True, use_attribute_docstrings=True)


class FourierInit(Section):
    """Embedding rows that start as random Fourier features of what their id stands for."""

    lowest: float = Field(default=1.0, gt=0)
    """Lowest frequency, in radians per unit of a value in [-1, 1]."""
    highest: float = Field(default=100.0, gt=0)
    """Highest frequency; the frequencies are log-uniform between the two."""
    scale: float = Field(default=0.1, gt=0)
    """Standard deviation of the entries. Adam moves every entry by about the learning rate a step,
    so a start at the usual 0.02 is forgotten within tens of steps."""


class LoraRecipe(Section):
    """Low-rank adapters in place of training the body (LoRA, Hu et al. 2021); needs peft."""

    rank: int = Field(default=16, gt=0)
    """Inner size of an adapter."""
    alpha: float = Field(default=32.0, gt=0)
    """Adapters are scaled by alpha / rank."""
    matrices: list[str] = Field(
        default_factory=lambda: [
            *("q_proj", "k_proj", "v_proj", "o_proj"),
            *("gate_proj", "up_proj", "down_proj"),
        ],
        min_length=1,
    )
    """Which matrices of every block get one."""


class EmbeddersRecipe(Section):
    """How a model in the compact form takes up what is observed."""

    positions: int = Field(default=1, gt=0)
    """Positions of an observation, G."""
    width: int = Field(default=32, gt=0)
    """Width of the rows in which an embedder looks tokens up."""
    convolutions: int = Field(default=0, ge=0)
    """3x3 convolutions that the cells of a board pass through before they become a position, so
    that what neighbours form is known wherever it lies."""


def _folder_of_shipped(name: str) -> str:
    """The folder of a checkpoint that ships, for its name; a folder of that name comes first."""
    shipped = None if Path(name).exists() else shipped_checkpoint(name)
    return name if shipped is None else str(shipped)


class ModelRecipe(Section):
    """The causal LM. All of it ends up in a plain Hugging Face config."""

    form: Literal["flat", "compact"] = "flat"
    """How timesteps are shown: flat, one position for each token, or compact, where embedders make
    few positions of an observation and a whole action is chosen in one forward pass. A checkpoint
    in the compact form that a run starts from keeps it."""
    embedders: EmbeddersRecipe = Field(default_factory=EmbeddersRecipe)
    """Sizes of what the compact form adds; a checkpoint that a run starts from has its own."""

    init_from: Annotated[Name, AfterValidator(_folder_of_shipped)] | None = None
    """Start from the weights of this model: a folder or repository of a pretrained language model
    (the data's processor must have been made of its tokenizer: `generalist tokenizer adopt`), or a
    checkpoint of our own, to be trained further: its folder, or the name of one that ships. Sizes
    are then its own and left out here."""
    lora: LoraRecipe | None = None
    """Train adapters and the embedding tables instead of everything; the final checkpoint holds
    them merged, as a plain model."""
    architecture: Literal["qwen3", "llama"] = "llama"
    """Which architecture of transformers; Qwen3 also normalises queries and keys."""
    hidden_size: int = Field(default=128, gt=0)
    """Width of the residual stream, D."""
    intermediate_size: int = Field(default=512, gt=0)
    """Width inside the SwiGLU feed-forward block."""
    layers: int = Field(default=4, gt=0)
    """Number of transformer blocks."""
    heads: int = Field(default=4, gt=0)
    """Attention heads."""
    kv_heads: int | None = Field(default=None, gt=0)
    """Heads of keys and values (grouped-query attention); as many as `heads` if not given."""
    head_dim: int | None = Field(default=None, gt=0)
    """Size of one head; hidden_size / heads if not given."""
    tie_embeddings: bool = True
    """One table for the input embedding and the head."""
    rope_theta: float = Field(default=10_000.0, gt=0)
    """Base of the rotary position embedding."""
    initializer_range: float | None = Field(default=None, gt=0)
    """Standard deviation of the initial weights; 1 / sqrt(hidden_size) if not given. The usual 0.02
    is right for widths above a thousand and starts a narrow model with almost no attention."""
    continuous_init: FourierInit | None = Field(default_factory=lambda: FourierInit())
    """How the rows of continuous bins start, as smooth features of the bin's value; null: like
    all other rows."""
    image_init: FourierInit | None = Field(default_factory=lambda: FourierInit(highest=6.0))
    """The same for the codes of the frame tokenizer, by their quantised latents."""

    @model_validator(mode="after")
    def _heads_fit(self) -> ModelRecipe:
        if self.head_dim is None and self.hidden_size % self.heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not a multiple of heads {self.heads}; "
                "change one of them or give head_dim"
            )
        if self.heads % (self.kv_heads or self.heads):
            raise ValueError(f"heads {self.heads} is not a multiple of kv_heads {self.kv_heads}")
        return self
