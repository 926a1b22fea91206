"""The command line: each command parses its arguments, calls, and prints."""
