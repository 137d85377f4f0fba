"""The command line: parses, calls the experiments, prints; nothing else."""

import contextlib
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Any

import tyro

from lapg.cli.compare import compare_command
from lapg.cli.figures import reproduce, tune
from lapg.cli.flower_demo import flower_demo
from lapg.cli.parts import check_env, list_parts
from lapg.cli.results import evaluate, guide, render, report
from lapg.cli.terminal import reader_has_gone
from lapg.cli.theory import predict, verify
from lapg.cli.train import config_file, train_command
from lapg.experiments.advance import Interrupted
from lapg.experiments.config import Config
from lapg.experiments.study import Study
from lapg.files import DiskError, remedy
from lapg.problems.contract import EnvironmentFailed


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point. Exit status: 0 done, 1 the disk or a connection failed, 2 bad input, 3 done but not sound, 130 interrupted with everything saved."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments == ["--version"]:
        print(f"lapg {metadata.version('lapg')}")
        return
    try:
        settings = config_file(arguments, Config()) if arguments[:1] == ["train"] else Config()
        study = config_file(arguments, Study()) if arguments[:1] == ["compare"] else Study()
        commands: dict[str, Callable[..., Any]] = {
            "reproduce": reproduce,
            "train": train_command(settings),
            "compare": compare_command(study),
            "evaluate": evaluate,
            "report": report,
            "guide": guide,
            "render": render,
            "tune": tune,
            "verify": verify,
            "predict": predict,
            "check-env": check_env,
            "flower-demo": flower_demo,
            "list": list_parts,
        }
        tyro.extras.subcommand_cli_from_dict(
            commands,
            prog="lapg",
            description="Communication-efficient distributed reinforcement learning.",
            args=arguments,
        )
    except Interrupted as stop:
        again = "the same command" if arguments[0] in ("reproduce", "compare") else f"lapg train --resume {stop.path}"
        _fail(f"{stop}; continue with {again}", 130)
    except KeyboardInterrupt:
        _fail("stopped; what was saved before stays as it is", 130)
    except ConnectionError as error:
        if not (isinstance(error, BrokenPipeError) and reader_has_gone()):
            place = traceback.extract_tb(error.__traceback__)[-1]
            _fail(f"{type(error).__name__}: {error}, raised at {place.filename}:{place.lineno} in {place.name}", 1)
    except EnvironmentFailed as error:
        sys.stderr.write(error.details)
        _fail(str(error), 1)
    except DiskError as error:
        _fail(str(error), 1)
    except OSError as error:
        _fail(f"{error.filename or 'file'}: {error.strerror or error}; {remedy(error)}.", 1)
    except ValueError as error:
        _fail(str(error), 2)


def _fail(message: str, status: int) -> None:
    with contextlib.suppress(OSError):  # a terminal that was closed
        print(f"lapg: {message}", file=sys.stderr)
    raise SystemExit(status)
