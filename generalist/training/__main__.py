"""`python -m generalist.training RECIPE [key=value ...]`, alone or under `accelerate launch`."""

from __future__ import annotations

import argparse
import os
import sys

from generalist.errors import GeneralistError, UsageError


def main(arguments: list[str] | None = None) -> int:
    """Parse, train, and return the exit code: 0 done, 1 failed or stopped, 2 wrong use."""
    parser = argparse.ArgumentParser(prog="generalist.training", description=__doc__)
    parser.add_argument("recipe", help="a recipe by name (recipes/NAME.yaml) or by path")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. schedule.steps=10")
    options = parser.parse_args(arguments)
    try:
        from generalist.training.loop import train
        from generalist.training.recipe import load_recipe

        folder = train(load_recipe(options.recipe, options.overrides))
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
