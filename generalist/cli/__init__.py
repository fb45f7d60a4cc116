"""The command line: one subcommand a file, heavy imports only inside the commands."""
