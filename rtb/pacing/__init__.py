"""Pacing: how much of a budget should be gone by now, and what to bid so that it is."""
