"""The books: who may spend how much, what is promised, what was spent. Pure, integers only."""
