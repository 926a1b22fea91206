"""Export: the classifier of a finished run as one file for use elsewhere."""
