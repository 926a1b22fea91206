"""Networks, layers and losses, usable on their own in any training loop."""
