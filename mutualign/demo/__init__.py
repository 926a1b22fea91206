"""The demo: finished runs side by side on a local web page."""
