"""`python -m byteatlas`: the command, where its script is not on the path."""

from byteatlas.cli import main

__all__: list[str] = []

if __name__ == "__main__":
    main(prog_name="byteatlas")
