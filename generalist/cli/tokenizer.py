"""`generalist tokenizer train|adopt|extend`: make the tokenizers of a vocabulary."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from generalist.cli.common import console

app = typer.Typer(
    no_args_is_help=True, help="Train tokenizers, adopt a language model's, or extend a vocabulary."
)
train_app = typer.Typer(no_args_is_help=True, help="Train one of the tokenizers.")
app.add_typer(train_app, name="train")

Out = Annotated[Path, typer.Option(help="Folder of the new tokenizer.")]
ProcessorOut = Annotated[Path, typer.Option(help="Folder of the new processor.")]


@app.command("adopt")
def adopt(
    model: Annotated[str, typer.Argument(help="Folder or repository of a language model.")],
    out: ProcessorOut = Path("runs/tokenizers/adopted"),
) -> None:
    """Make a processor with the text tokens of a pretrained language model.

    Collect with `--processor OUT`, then train with `data.processor=OUT model.init_from=MODEL`.
    """
    from generalist.tokenization.adopt import adopt_text_tokenizer

    processor = adopt_text_tokenizer(model)
    processor.save_pretrained(out)
    _say_processor(out, processor.vocabulary.size)


@app.command("extend")
def extend(
    name: Annotated[str, typer.Argument(help="Name of the new range of ids.")],
    size: Annotated[int, typer.Argument(min=1, help="Number of ids in the range.")],
    processor: Annotated[
        Path | None,
        typer.Option(help="Folder of the processor to extend. Default: the shipped one."),
    ] = None,
    out: ProcessorOut = Path("runs/tokenizers/extended"),
) -> None:
    """Append a range of ids to the vocabulary of a processor; every old id keeps its meaning.

    The new processor reads shards of the old one too. Train a checkpoint of the old one further
    with `data.processor=OUT model.init_from=CHECKPOINT`.
    """
    from generalist.tokenization.processor import GeneralistProcessor, load_processor

    old = load_processor(processor)
    new = GeneralistProcessor(old.vocabulary.append(name, size), old.text, old.frames)
    new.save_pretrained(out)
    _say_processor(out, new.vocabulary.size)


def _say_processor(out: Path, ids: int) -> None:
    console().print(f"Processor of {ids:,} ids: [bold]{out}[/]", soft_wrap=True)


@train_app.command("text")
def text(
    out: Out = Path("runs/tokenizers/text"),
    vocabulary_size: Annotated[int, typer.Option(help="Number of ids, at least 256.")] = 8192,
) -> None:
    """Train the byte-level BPE on the documentation that comes with Python.

    The command writes the tokenizer at the end; after an interruption it begins anew.
    """
    from generalist.tokenization.train_text import train_text_tokenizer

    path = train_text_tokenizer(out, vocabulary_size, progress=True)
    console().print(f"Text tokenizer: [bold]{path}[/]", soft_wrap=True)


@train_app.command("frames")
def frames(
    out: Out = Path("runs/tokenizers/frames"),
    task: Annotated[
        list[str] | None,
        typer.Option(help="Task that shows frames. May be repeated. Default: those of the spec."),
    ] = None,
    frames_per_task: Annotated[int | None, typer.Option(min=1, help="Frames per task.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Training steps.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Time limit of the training.")] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of the frames and of the training.")
    ] = None,
    spec: Annotated[
        str, typer.Option(help="Folder of tokenizers/ whose spec.yaml has the defaults.")
    ] = "frames",
) -> None:
    """Train the FSQ frame tokenizer on frames from episodes of experts and of random play.

    Defaults stand in tokenizers/frames/spec.yaml, or in that of another SPEC, `worlds`. The command
    writes the tokenizer at the end; after an interruption it begins anew.
    """
    from generalist.tokenization.train_frames import train_frame_tokenizer

    path = train_frame_tokenizer(
        out,
        task,
        frames_per_task=frames_per_task,
        minutes=minutes,
        seed=seed,
        steps=steps,
        spec=spec,
    )
    console().print(f"Frame tokenizer: [bold]{path}[/]", soft_wrap=True)
