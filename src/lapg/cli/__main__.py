"""``python -m lapg.cli``."""

from lapg.cli import main

main()
