"""Evidence: pure functions of logits; label-free selection, and evaluation."""
