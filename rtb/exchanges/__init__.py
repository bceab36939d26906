"""Bytes to records and back: one pure module a dialect, settings per exchange."""
