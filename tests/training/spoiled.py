"""`python -m tests.training.spoiled RECIPE`: training whose third step has a gradient of NaN.

For runs of several processes, where a test cannot reach into them.
"""

from __future__ import annotations

import sys

from generalist.training import loop
from generalist.training.__main__ import main

NTH = 2


def spoil(build):
    """Make what `build` builds take the step number NTH at a scale of NaN."""

    def spoiled(*arguments):
        strategy = build(*arguments)
        real, calls = strategy.accumulate, []

        def accumulate(parts, scale):
            calls.append(scale)
            return real(parts, float("nan") if len(calls) - 1 == NTH else scale)

        strategy.accumulate = accumulate
        return strategy

    return spoiled


if __name__ == "__main__":
    loop.build_strategy = spoil(loop.build_strategy)
    sys.exit(main())
