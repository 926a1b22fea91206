"""The commands: each parses its arguments, calls, and prints; no maths."""
