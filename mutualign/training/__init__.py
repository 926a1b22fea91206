"""Training: batches, the loop, the run folder, the machine."""
