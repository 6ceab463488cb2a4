"""The data doctor: what is wrong with the rows of a recipe, said before anything is run. No torch here."""

from tlscale.sources.doctor.examine import diagnose, examine
from tlscale.sources.doctor.finding import SEVERITIES, Finding, Severity, ordered

__all__ = ["SEVERITIES", "Finding", "Severity", "diagnose", "examine", "ordered"]
