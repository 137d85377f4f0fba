"""The command that shows a Flower federation on one machine: a short run, its ledger, and the bytes at three levels."""

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.table import Table

from lapg.cli.terminal import console
from lapg.costs.ledger import downlink_bits, uplink_bits
from lapg.experiments.config import Choice, Config
from lapg.experiments.run import Run
from lapg.experiments.train import train
from lapg.methods import Part

METHODS = {
    "lapg": Choice("lapg", trigger=Part(noise_weight=1.0, xi=0.5)),
    "pg": Choice("pg"),
}


def flower_demo(
    learners: int = 2,
    rounds: int = 10,
    method: Literal["lapg", "pg"] = "lapg",
    out: Path = Path("runs/flower-demo"),
    check: bool = False,
) -> None:
    """Train in a Flower federation on this machine: one SuperLink and a SuperNode for each learner, with TLS and node keys, and show the ledger.

    Everything that is started is stopped again. OUT is the run, and has the app and the processes' logs beside it.

    For example:
      lapg flower-demo --learners 3 --rounds 20 --check

    Args:
      learners: M.
      rounds: K.
      method: the paper's, or plain policy gradient.
      out: new directory.
      check: compare with the same run on runtime vectorised, in OUT-simulated.
    """
    if learners < 1 or rounds < 1:
        raise ValueError(f"learners and rounds must be >= 1, got {learners} and {rounds}.")
    problem, policy = Part("cooperative_navigation", num_agents=learners), Part(hidden=(8,))
    setting = Config(problem=problem, policy=policy, batch_size=4, rounds=rounds, seeds=1, chunk_rounds=5)
    config = setting.playing(METHODS[method])
    simulated = train(config, out.with_name(f"{out.name}-simulated"), show_progress=False) if check else None
    run = train(config, out, runtime="flower")
    _show_ledger(run)
    _show_bytes(run)
    if simulated is not None:
        _compare(run, simulated)


def _show_ledger(run: Run) -> None:
    record = run.record.isel(seed=0)
    sent, up, down = record["sent"].values, *(bits // 8 for bits in _ledger(record))
    table = Table("round", "uploads", "by", "bytes up so far", "bytes down so far", title=str(run.path))
    for k in range(len(sent)):
        who = " ".join(str(m) for m in sent[k].nonzero()[0]) or "nobody"
        table.add_row(str(k), str(int(sent[k].sum())), who, f"{up[k]:,}", f"{down[k]:,}")
    console.print(table)


def _ledger(record: Any) -> tuple[np.ndarray, np.ndarray]:
    up = uplink_bits(record["uplink_bits"].values, record["answered"].values)
    return up, downlink_bits(record["downlink_bits"].values, record["contacted"].values)


def _show_bytes(run: Run) -> None:
    """The same run at three levels; skips are answers without a byte."""
    traffic = json.loads((run.path / "flower" / "traffic.json").read_text(encoding="utf-8"))
    flower = json.loads((run.path / "flower" / "flwr-list.json").read_text(encoding="utf-8"))["network-traffic"]
    up, down = (int(bits[-1]) // 8 for bits in _ledger(run.record.isel(seed=0)))
    table = Table("level", "messages", "bytes down", "answers", "bytes up")
    table.add_row("ledger", "", f"{down:,}", "", f"{up:,}")
    for what, (messages, below, answers, above) in traffic.items():
        table.add_row(f"lapg: {what}", str(messages), f"{below:,}", str(answers), f"{above:,}")
    table.add_row("Flower", "", f"{flower['outbound-bytes']:,}", "", f"{flower['inbound-bytes']:,}")
    console.print(table)


def _compare(run: Run, simulated: Run) -> None:
    differing = int((run.record["sent"].values != simulated.record["sent"].values).sum())
    apart = float(np.abs(run.params() - simulated.params()).max())
    console.print(
        f"against runtime vectorised, {run.params().dtype}: {differing} of {run.record['sent'].size} upload decisions differ, "
        f"parameters by at most {apart:.2g}"
    )
