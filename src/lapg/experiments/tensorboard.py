"""Scalars for TensorBoard, behind the extra `tensorboard`."""

from pathlib import Path

import xarray as xr

from lapg.experiments.advance import Watcher


def tensorboard(path: Path) -> Watcher:
    """A watcher that writes score, upload fraction and noise, seed means, below ``path``.

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
        means = {
            name: segment[name].mean(("seed", "learner")).values
            for name in ("score_scaled", "score_raw", "sent", "noise")
        }
        for name, values in means.items():
            for round, value in zip(segment["round"].values, values, strict=True):
                writer.add_scalar(name, float(value), int(round))
        writer.flush()

    return watch
