"""``python -m byteatlas.testing DIRECTORY`` serves a directory with ranges on loopback."""

from byteatlas.testing.server import main

main()
