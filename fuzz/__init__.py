"""Hostile files: mutated samples, what byteatlas makes of them, and what other libraries do.

`python -m fuzz --help` runs a campaign; README.md in this folder says what it shows.
"""
