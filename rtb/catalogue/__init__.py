"""What may be advertised: the catalogue as people write it, and as workers serve it."""
