"""One module a command, and the demo that runs them together."""
