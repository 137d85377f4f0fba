"""Scalars for TensorBoard, behind the extra `tensorboard`."""

from pathlib import Path

import xarray as xr

from lapg.experiments.loop import Callback

NAMES = ("score_scaled", "score_raw", "training_score_scaled", "sent", "noise", "training_steps")


def tensorboard(path: Path) -> Callback:
    """A callback that writes scores, upload fraction, noise and steps of the environment, seed means, below ``path``.

    Raises:
      ValueError: tensorboardX is not installed.
    """
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise ValueError("tensorboard needs the extra: pip install 'lapg[tensorboard]'.") from error
    writers = []  # opened with the first stretch of rounds: until then the run's directory must be empty

    def watch(segment: xr.Dataset, until: int, /) -> None:
        if not writers:
            writers.append(SummaryWriter(str(path)))
        (writer,) = writers
        for name in NAMES:
            if name not in segment:
                continue
            known = segment["evaluated"].any(("seed", "learner")).values if name.startswith("score") else slice(None)
            means = segment[name].mean(("seed", "learner"))[known]
            for round, value in zip(means["round"].values, means.values, strict=True):
                writer.add_scalar(name, float(value), int(round))
        writer.flush()

    return watch
