"""`python -m mutualign`."""

from mutualign.cli import main

main()
