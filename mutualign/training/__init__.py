"""Training: batches, the loop, optimisers, callbacks, processes."""
