"""Reading and writing files: text, tensors, atomic writes."""
