"""`generalist tokenizer train|adopt|extend`: the parts of the vocabulary."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from generalist.cli.common import console

app = typer.Typer(no_args_is_help=True, help="Train, adopt or extend tokenizers.")
train_app = typer.Typer(no_args_is_help=True, help="Train one of the tokenizers.")
app.add_typer(train_app, name="train")

Out = Annotated[Path, typer.Option(help="Folder the tokenizer is written to.")]
ProcessorOut = Annotated[Path, typer.Option(help="Folder the processor is written to.")]


@app.command("adopt")
def adopt(
    model: Annotated[str, typer.Argument(help="Folder or repository of a language model.")],
    out: ProcessorOut = Path("runs/tokenizers/adopted"),
) -> None:
    """Make a processor whose text tokens are those of a pretrained language model.

    Collect with --processor OUT, then train with data.processor=OUT model.init_from=MODEL.
    """
    from generalist.tokenization.adopt import adopt_text_tokenizer

    processor = adopt_text_tokenizer(model)
    processor.save_pretrained(out)
    _say_processor(out, processor.vocabulary.size)


@app.command("extend")
def extend(
    name: Annotated[str, typer.Argument(help="Name of the new range.")],
    size: Annotated[int, typer.Argument(min=1, help="Its number of ids.")],
    processor: Annotated[
        Path | None, typer.Option(help="Folder of the processor to extend; the shipped one.")
    ] = None,
    out: ProcessorOut = Path("runs/tokenizers/extended"),
) -> None:
    """Append a range to the vocabulary of a processor; every old id keeps its meaning.

    Shards made with the old one are read with the new one too, and a checkpoint of the old one is
    trained further with data.processor=OUT model.init_from=CHECKPOINT.
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
    vocabulary_size: Annotated[int, typer.Option(help="Ids, at least 256.")] = 8192,
) -> None:
    """Train the byte-level BPE on the documentation that comes with Python.

    Nothing is written before its end; after an interruption the same command begins anew.
    """
    from generalist.tokenization.train_text import train_text_tokenizer

    path = train_text_tokenizer(out, vocabulary_size, progress=True)
    console().print(f"Text tokenizer: [bold]{path}[/]", soft_wrap=True)


@train_app.command("frames")
def frames(
    out: Out = Path("runs/tokenizers/frames"),
    task: Annotated[
        list[str] | None,
        typer.Option(help="A task that gives frames, repeatable; the spec names its own."),
    ] = None,
    frames_per_task: Annotated[int | None, typer.Option(min=1, help="Frames of a task.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Training steps.")] = None,
    minutes: Annotated[float | None, typer.Option(help="At most this much training.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the frames and of the training.")] = None,
) -> None:
    """Train the FSQ frame tokenizer on frames that experts and random play show.

    What is not given stands in tokenizers/frames/spec.yaml. Nothing is written before its end;
    after an interruption the same command begins anew.
    """
    from generalist.tokenization.train_frames import train_frame_tokenizer

    path = train_frame_tokenizer(
        out, task, frames_per_task=frames_per_task, minutes=minutes, seed=seed, steps=steps
    )
    console().print(f"Frame tokenizer: [bold]{path}[/]", soft_wrap=True)
