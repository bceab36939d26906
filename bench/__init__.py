"""Benchmarks: one file a question, one JSON file an answer; see docs/benchmarks.md."""
