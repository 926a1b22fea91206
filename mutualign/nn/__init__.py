"""Networks, layers and losses: what can be used alone, in any training loop."""
