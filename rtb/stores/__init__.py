"""All I/O: artefact files, profile stores, the shared-memory board."""
