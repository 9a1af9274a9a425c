"""Can a URL be read by ranges, how fast, how safely, and what to do where it cannot."""

from byteatlas.diagnosis.checks import Check, Diagnosis, Verdict
from byteatlas.diagnosis.looking import diagnose

__all__ = ["Check", "Diagnosis", "Verdict", "diagnose"]
