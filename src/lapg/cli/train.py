"""The command that trains."""

from argparse import ArgumentError, ArgumentParser
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, TypeVar

import tyro

from lapg.cli.flags import flags_of, from_flags
from lapg.cli.terminal import console
from lapg.experiments.config import Config, read_toml
from lapg.experiments.loop import Callback
from lapg.experiments.run import load
from lapg.experiments.silence import louder
from lapg.experiments.soundness import last_score
from lapg.experiments.train import default_out
from lapg.experiments.train import resume as resume_run
from lapg.experiments.train import train as train_run
from lapg.record.files import expand

Settings = TypeVar("Settings")
NOT_SOUND = 3
"""Exit status of a run that is finished, but in which losses or gradients were not finite."""


def train_command(default: Config, *, everything: bool = False) -> Callable[..., None]:
    """The command, with the settings that it starts from; its flags are those of the parts that these name.

    Args:
      everything: whether --help has the parts that neither the settings nor the method name.
    """
    flags = flags_of(default, everything=everything)

    def train(
        settings: Annotated[type(flags), tyro.conf.arg(name="")] = flags,  # pyright: ignore[reportInvalidTypeForm]
        config: Path | None = None,
        out: Path | None = None,
        resume: Path | None = None,
        init_from: Path | None = None,
        tensorboard: bool = False,
        trust: bool = False,
    ) -> None:
        """Train one method on one problem over several seeds.

        A part is named by --KIND.name, and --help then has its options. Parts that neither you nor the method name are left out there; --help-all has them.

        For example:
          lapg train --method lapg --trigger.noise-weight 1 --problem.scales 1 0.5 --rounds 2000
          lapg train --method awapg --trigger.name periodic --trigger.period 40 --optimiser.name adam --optimiser.b1 0.95
          lapg train --trigger.name periodic --help             (its options among the others)
          lapg train --config experiment.toml --seeds 20        (what the file says, with more seeds)
          lapg train --resume runs/lapg-20260101-120000

        Args:
          settings: the experiment.
          config: TOML file with settings; flags override it.
          out: new directory for the run; runs/METHOD-DATE-TIME by default.
          resume: directory of an interrupted run to finish; everything else is taken from there.
          init_from: run whose final parameters this one starts from.
          tensorboard: also write scalars to OUT/tensorboard (extra `tensorboard`).
          trust: with resume: run code from outside lapg that the run names.
        """
        asked = from_flags(settings, default)
        callbacks: tuple[Callback, ...] = ()
        if tensorboard:
            from lapg.experiments.tensorboard import tensorboard as board

            place = resume or (out := out or default_out(asked))
            callbacks = (board(expand(place) / "tensorboard"),)
        if resume is not None:
            if asked != Config() or out or init_from or config:
                raise ValueError("--resume takes all settings from the run; leave the other options out.")
            run = resume_run(resume, callbacks=callbacks, trust=trust)
        else:
            if trust:
                raise ValueError("--trust goes with --resume; what you name yourself is trusted.")
            source = None if init_from is None else load(init_from)
            run = train_run(asked, out, init_from=source, callbacks=callbacks)
        console.print(
            f"{last_score(run.record)}   "
            f"uploads {int(run.record['sent'].sum(('round', 'learner')).mean())} of {run.config.rounds * run.record.sizes['learner']} a seed   "
            f"run: {run.path}",
            soft_wrap=True,
        )
        for line in run.unsound:
            console.print(line, style="red", soft_wrap=True)
        if run.unsound:
            raise SystemExit(NOT_SOUND)
        if not run.record["sent"].any():
            console.print(f"Nobody has uploaded, so nothing was learned: {louder(run.config)}", style="yellow")

    return train


def config_file(arguments: Sequence[str], default: Settings) -> Settings:
    """The settings of a command's TOML file, so that flags override them."""
    parser = ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--config", type=Path)
    try:
        found = parser.parse_known_args(arguments)[0].config
    except ArgumentError:  # --config without a file; the real parser says so
        return default
    return read_toml(found, default) if found is not None else default
