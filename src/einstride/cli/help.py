"""How help is set."""

from __future__ import annotations

import argparse


class Help(argparse.HelpFormatter):
    """Wraps prose, and leaves examples as they are written."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if text.startswith("examples:") else super()._fill_text(text, width, indent)
