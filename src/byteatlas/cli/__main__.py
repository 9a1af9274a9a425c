"""`python -m byteatlas.cli`."""

from byteatlas.cli import main

main(prog_name="byteatlas")
