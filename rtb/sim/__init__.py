"""The other side: traffic, a simulated exchange, a seeded retailer."""
