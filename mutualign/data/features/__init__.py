"""Features of photos from a frozen pretrained network, computed once and kept by content."""
