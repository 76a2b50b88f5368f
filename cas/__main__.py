"""`python -m cas` is the command `cas`."""

from cas.cli.main import main

main()
