"""What the command ``lapg`` runs. It lies beside the package because importing that takes most of the start-up, in which Ctrl-C has to be heeded already."""

import _thread
import os
import signal
import sys
import threading
from typing import Any


def main() -> None:
    """Imports the command line and hands over to it."""
    heeds = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if heeds:
        signal.signal(signal.SIGINT, _leave)
    from lapg.cli import main as command

    try:
        if heeds:
            sys.unraisablehook = _unraisable
            signal.signal(signal.SIGINT, signal.default_int_handler)
        command()
    except KeyboardInterrupt:
        _leave()
    finally:
        if heeds:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # nothing is left to stop but the interpreter's own end


def _unraisable(found: Any) -> None:
    """Ctrl-C again, a moment later, where it came in a callback (JAX has one of the garbage collector's), which would print a traceback and go on."""
    if not issubclass(found.exc_type, KeyboardInterrupt):
        return sys.__unraisablehook__(found)
    again = threading.Timer(0.02, _thread.interrupt_main)
    again.daemon = True
    return again.start()


def _leave(*_: Any) -> None:
    """Ends the process at once: an exception may be lost, or shown, by whatever is being imported."""
    os.write(2, b"lapg: stopped while starting; nothing was begun, and what is on disk stays as it is\n")
    os._exit(130)


if __name__ == "__main__":
    main()
