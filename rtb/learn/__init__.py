"""Models: from a log of impressions to a published artefact."""
