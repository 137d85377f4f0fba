"""What the command ``lapg`` runs. It lies beside the package because importing that takes most of the start-up, in which Ctrl-C has to be heeded already."""

import os
import signal
from typing import Any


def main() -> None:
    """Imports the command line and hands over to it."""
    heeds = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if heeds:
        signal.signal(signal.SIGINT, _leave)
    from lapg.cli import main as command

    try:
        if heeds:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        command()
    except KeyboardInterrupt:
        _leave()
    finally:
        if heeds:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # nothing is left to stop but the interpreter's own end


def _leave(*_: Any) -> None:
    """Ends the process at once: an exception may be lost, or shown, by whatever is being imported."""
    os.write(2, b"lapg: stopped while starting; nothing was begun, and what is on disk stays as it is\n")
    os._exit(130)


if __name__ == "__main__":
    main()
