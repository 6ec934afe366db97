"""``python -m dosql.cli``."""

from dosql.cli import main

main()
