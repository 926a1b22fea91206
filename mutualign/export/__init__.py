"""Export: a finished run as one file for use elsewhere."""
