"""Compiled modules land here, each with its stub."""
