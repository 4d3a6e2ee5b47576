"""Presentation of expressions and plans; nothing below imports it."""
