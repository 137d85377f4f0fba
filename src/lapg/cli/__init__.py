"""The command line: parses, calls the experiments, prints; nothing else."""

import contextlib
import re
import sys
import sysconfig
import traceback
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import tyro

from lapg.cli.check import check_command
from lapg.cli.compare import compare_command
from lapg.cli.figures import reproduce, tune
from lapg.cli.flags import named_by
from lapg.cli.flower_demo import flower_demo
from lapg.cli.parts import check_env, list_parts
from lapg.cli.results import evaluate, guide, render, report
from lapg.cli.terminal import one_line_errors, reader_has_gone
from lapg.cli.theory import predict, verify
from lapg.cli.train import config_file, train_command
from lapg.comparison.study import Study
from lapg.experiments.config import PARTS, Config
from lapg.experiments.loop import Interrupted
from lapg.experiments.run import resume_command
from lapg.problems.adapters import BESIDE
from lapg.problems.contract import EnvironmentFailed
from lapg.record.files import DiskError, reason, remedy

HOUSE = str(Path(__file__).parents[1])


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point. Exit status: 0 done, 1 the disk or a connection failed, 2 bad input, 3 done but not sound, 130 interrupted with everything saved."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments == ["--version"]:
        print(f"lapg {version('lapg')}")
        return
    try:
        BESIDE[:] = [str(Path.cwd())]
        settings = Config()
        if arguments[:1] == ["train"]:
            settings = named_by(arguments, config_file(arguments, settings))
        everything = not {"-h", "--help"} & set(arguments)
        if arguments[:1] == ["train"]:
            arguments = ["--help" if word == "--help-all" else word for word in arguments]
        study = config_file(arguments, Study()) if arguments[:1] == ["compare"] else Study()
        commands: dict[str, Callable[..., Any]] = {
            "reproduce": reproduce,
            "train": train_command(settings, everything=everything),
            "compare": compare_command(study),
            "evaluate": evaluate,
            "report": report,
            "guide": guide,
            "render": render,
            "tune": tune,
            "verify": verify,
            "predict": predict,
            "check": check_command(arguments[1:] if arguments[:1] == ["check"] else ()),
            "check-env": check_env,
            "flower-demo": flower_demo,
            "list": list_parts,
        }
        with one_line_errors(commands, arguments) as runnable:
            tyro.extras.subcommand_cli_from_dict(
                runnable,
                prog="lapg",
                description="Communication-efficient distributed reinforcement learning. --version says which this is.",
                args=arguments,
            )
    except Interrupted as stop:
        again = "the same command" if arguments[0] in ("reproduce", "compare") else resume_command(stop.path)
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
        if _others(error):
            raise
        _fail(f"{error.filename or 'file'}: {reason(error)}; {remedy(error)}.", 1)
    except ValueError as error:
        if not _raised_here(error):
            raise
        _fail(_flags(str(error)), 2)


def _raised_here(error: BaseException) -> bool:
    """Whether it was lapg's own code that raised, so that its message is meant to be read alone."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return frame.f_code.co_filename.startswith(HOUSE)


def _others(error: OSError) -> bool:
    """Whether a user's own code took part: it is neither lapg's nor an installed package's nor Python's."""
    known = (HOUSE, *sysconfig.get_paths().values())
    files = (frame.f_code.co_filename for frame, _ in list(traceback.walk_tb(error.__traceback__))[1:])
    return not all(file.startswith((*known, "<")) for file in files)


def _flags(message: str) -> str:
    """A message with settings by their flags: --trigger.max-age."""
    kinds = "|".join((*PARTS, "part"))
    return re.sub(
        rf"(?<![\w.\[-])(?:{kinds}|cluster)(?:\.[a-z]\w*)+\b(?![:(])",
        lambda match: f"--{match[0].replace('_', '-')}",
        message,
    )


def _fail(message: str, status: int) -> None:
    with contextlib.suppress(OSError):  # a terminal that was closed
        print(f"lapg: {message}", file=sys.stderr)
    raise SystemExit(status)
