"""The keeper: reads what workers did, books it, and lends them what they may spend next."""
