"""The command that compares."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import tyro

from lapg.cli.terminal import console
from lapg.comparison.study import Study, run
from lapg.runtimes import use_all_cores


def compare_command(default: Study) -> Callable[..., None]:
    """The command, with the study that it starts from."""

    def compare(
        study: Annotated[Study, tyro.conf.arg(name="")] = default,
        config: Path | None = None,
        out: Path = Path("runs/compare"),
    ) -> None:
        """Ask which upload rule to deploy: methods x problems x seeds, every method tuned by the protocol, beside PG and the baselines.

        Results go to OUT/PROBLEM. Calling again continues where an earlier call stopped; methods may be added, and what is finished is kept.

        For example:
          lapg compare --methods scout awapg lapg --problem fig4 parallel-cartpole-heterogeneous
          lapg compare --config study.toml --seeds 20           (what the file says, with more seeds)

        Args:
          study: what is compared.
          config: TOML file with the same settings, and with methods and problems of your own; flags override it.
          out: directory for the results.
        """
        use_all_cores()
        run(study, out, console=console)

    return compare
