"""`python -m mutualign`."""

from mutualign.cli.app import main

main()
