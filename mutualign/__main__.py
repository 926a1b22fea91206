"""`python -m mutualign`: the same as the command `mutualign`."""

from mutualign.cli.app import main

main()
