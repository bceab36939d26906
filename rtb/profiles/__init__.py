"""What we know of a person: the golden record, pure functions over bytes."""
