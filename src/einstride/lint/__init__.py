"""Lint: what is wrong, or likely meant otherwise, in the einsum calls of a source text that is read and never run."""

from .finding import RULES, Finding, Severity
from .rules import findings
from .source import Source, read

__all__ = ["RULES", "Finding", "Severity", "Source", "findings", "read"]
