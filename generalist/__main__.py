"""`python -m generalist` is the command `generalist`."""

from generalist.cli.main import run

if __name__ == "__main__":
    run()
