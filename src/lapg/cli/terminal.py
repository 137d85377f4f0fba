"""What all commands share: the terminal."""

import tyro
from rich.console import Console

Positional = tyro.conf.Positional
console = Console()
