"""`python -m generalist` is the command `generalist`."""

import sys

from generalist.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
