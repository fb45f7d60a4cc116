"""The command `generalist`: its subcommands, its exit codes, and its messages about failures.

Exit codes: 0 done, 1 failed, 2 wrong use, 130 interrupted.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer

from generalist.cli import (
    analyze,
    arena,
    collect,
    dagger,
    evaluate,
    expert,
    export,
    import_,
    info,
    inspect,
    play,
    push,
    quickstart,
    recipe,
    reinforce,
    rollout,
    selfplay,
    tasks,
    tokenizer,
    train,
    validate,
    watch,
)
from generalist.errors import GeneralistError, MissingPackageError, UsageError, causes
from generalist.processes import ending_in_time, exit_at_once

DONE, FAILED, WRONG_USE, INTERRUPTED = 0, 1, 2, 130
DEBUG = "--debug"
AGAIN = "run the same command again to continue"
ANEW = "The same command begins anew"
CONTINUE = (
    "arena", "collect", "dagger", "evaluate", "import", "quickstart", "reinforce", "selfplay",
    "train",
)  # fmt: skip

app = typer.Typer(
    name="generalist",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with [bold]generalist watch[/]: a trained checkpoint plays. Then "
    "[bold]generalist quickstart[/]: demonstrations, tokens, training, scores.",
)
app.command("watch")(watch.watch)
app.command("play")(play.play)
app.command("quickstart")(quickstart.quickstart)
app.command("tasks")(tasks.tasks)
app.command("collect")(collect.collect)
app.add_typer(import_.app, name="import")
app.add_typer(expert.app, name="expert")
app.command("inspect")(inspect.inspect)
app.command("validate")(validate.validate)
app.command("train")(train.train)
app.command("reinforce")(reinforce.reinforce)
app.command("recipe")(recipe.recipe)
app.add_typer(rollout.app, name="rollout")
app.command("evaluate")(evaluate.evaluate)
app.command("selfplay")(selfplay.selfplay)
app.command("arena")(arena.arena)
app.add_typer(analyze.app, name="analyze")
app.command("dagger")(dagger.dagger)
app.add_typer(tokenizer.app, name="tokenizer")
app.command("export")(export.export)
app.command("push")(push.push)
app.command("info")(info.info)


def _version(wanted: bool) -> None:
    if wanted:
        import generalist

        print(f"generalist {generalist.__version__}")
        raise typer.Exit()


@app.callback()
def options(
    debug: Annotated[
        bool,
        typer.Option(
            DEBUG, help="Show the traceback of a failure. May stand anywhere in the command."
        ),
    ] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """One causal language model that learns from any environment as one flat token sequence."""


def run() -> None:
    """Run the command line of this process and exit, in time after Ctrl-C or SIGTERM too."""
    with ending_in_time(INTERRUPTED):
        code = main()
        if code == INTERRUPTED:
            exit_at_once(code)
    sys.exit(code)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line.

    Args:
        arguments: what follows `generalist`; None for this process's own.

    Returns:
        The exit code: 0 done, 1 failed, 2 wrong use, 130 interrupted.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = DEBUG in given
    given = [_with_home(argument) for argument in given if argument != DEBUG]
    # The user's own environments and experts lie in the current folder. It stands last in the path,
    # so that a folder of specs there hides no package of the same name.
    sys.path.append(os.getcwd())
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pygame draws into videos, never on a screen
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # loading takes a second
    try:
        code = app(given, prog_name="generalist", standalone_mode=False) or DONE
        if code == INTERRUPTED:  # the command line's own handling of Ctrl-C
            raise KeyboardInterrupt
        return code
    except KeyboardInterrupt:
        what = next((argument for argument in given if not argument.startswith("-")), "")
        kept = f"What was finished is kept; {AGAIN}" if what in CONTINUE else ANEW
        return _fail(f"Interrupted. {kept}.", INTERRUPTED)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else FAILED
    except BaseException as error:
        if debug:
            traceback.print_exc()
        return _explain(error)


def _with_home(argument: str) -> str:
    """Expand `~` in `--out=~/data`; shells expand it only at the beginning of a word."""
    option, equals, value = argument.partition("=")
    if option.startswith("--") and equals and value.split("/")[0] == "~":
        return f"{option}={os.path.expanduser(value)}"
    return argument


def _explain(error: BaseException) -> int:
    """Print what went wrong on stderr, in one sentence; return the exit code."""
    if type(error).__name__ in ("Interrupted", "TrainingInterrupted"):
        return _fail(str(error), INTERRUPTED)  # training's own class would load torch
    if isinstance(error, GeneralistError):
        return _fail(str(error), WRONG_USE if isinstance(error, UsageError) else FAILED)
    if hasattr(error, "format_message"):  # wrong use of an option or argument
        return _wrong_use(error)
    if full := _disk_is_full(error):
        name = getattr(full, "filename", None)
        where = f" ({name})" if name else ""
        return _fail(f"No space is left on the disk{where}. Make room, then {AGAIN}.", FAILED)
    if isinstance(error, (PermissionError, FileNotFoundError, NotADirectoryError)):
        return _fail(f"{error.filename}: {error.strerror}.", FAILED)
    if isinstance(error, ModuleNotFoundError) and error.name:
        return _fail(str(MissingPackageError(error.name.partition(".")[0], "This")), FAILED)
    return _fail(
        f"Unexpected {type(error).__name__}: {str(error).rstrip('.')}. This is a fault of "
        f"generalist or of a package it uses; add {DEBUG} for the traceback.",
        FAILED,
    )


def _wrong_use(error: BaseException) -> int:
    message = error.format_message()  # type: ignore[attr-defined]
    context = getattr(error, "ctx", None)
    if not message or type(error).__name__ == "NoArgsIsHelpError":
        print(context.get_help() if context else message)
        return WRONG_USE
    if context is not None:
        message = f"{message.rstrip('.')}. See `{context.command_path} --help`."
    return _fail(message, WRONG_USE)


def _disk_is_full(error: BaseException) -> BaseException | None:
    """The cause that reports a full disk, if any; libraries in Rust report it in words alone."""
    for link in causes(error):
        if isinstance(link, OSError) and link.errno in (errno.ENOSPC, errno.EDQUOT):
            return link
        if "no space left on device" in str(link).lower():
            return link
    return None


def _fail(sentence: str, code: int) -> int:
    print(f"Error: {sentence}" if code != INTERRUPTED else f"\n{sentence}", file=sys.stderr)
    return code


if __name__ == "__main__":
    run()
