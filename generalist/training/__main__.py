"""`python -m generalist.training RECIPE [key=value ...]`, alone or under `accelerate launch`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from generalist.errors import GeneralistError, UsageError


def main(arguments: list[str] | None = None) -> int:
    """Run the command line of a training process, and return its exit code.

    Args:
        arguments: recipe, overrides and options; None for this process's own.

    Returns:
        0 done, 1 failed or stopped, 2 wrong use.
    """
    parser = argparse.ArgumentParser(prog="generalist.training", description=__doc__)
    parser.add_argument(
        "recipe", help="a recipe's name (recipes/NAME.yaml) or the path of a YAML file"
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="recipe keys to change: schedule.steps=10"
    )
    parser.add_argument(
        "--resume",
        default="latest",
        metavar="latest|PATH",
        help="checkpoint to continue from: the newest of this run, or the folder PATH",
    )
    parser.add_argument(
        "--allow-changes",
        action="store_true",
        help="continue a run although its recipe or data have changed",
    )
    options = parser.parse_intermixed_args(arguments)
    try:
        from generalist.training.loop import train
        from generalist.training.recipe import load_recipe

        recipe = load_recipe(options.recipe, options.overrides)
        source = None if options.resume == "latest" else Path(options.resume).expanduser()
        folder = train(recipe, resume_from=source, allow_changes=options.allow_changes)
    except UsageError as error:
        print(error, file=sys.stderr)
        return 2
    except GeneralistError as error:
        print(error, file=sys.stderr)
        return 1
    if int(os.environ.get("RANK", "0")) == 0:
        print(f"Checkpoint: {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
