"""What a replicated downlink saves, at the same score: one method of a figure with every downlink, dense first.

    python benchmarks/downlink.py OUT                          the recommended method at Figure 4, 10 seeds
    python benchmarks/downlink.py OUT fig6 LAPG                another figure, another of its methods
    python benchmarks/downlink.py OUT fig4 AWAPG 0.5           half of the learners a round

Targets are those of the comparison protocol with the dense run as the reference. Runs that are in OUT already are not repeated.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from lapg import ledger
from lapg.experiments.compare import compare, to_curve
from lapg.experiments.figures import FIGURES, lineup
from lapg.experiments.report import interval
from lapg.experiments.run import Run, load, resume, train

DOWNLINKS = {
    "dense": {"downlink": "dense"},
    "replicated": {"downlink": "replicated"},
    "quantise, 8 bits": {"downlink": "replicated", "downlink_compressor": "quantise", "downlink_bits": 8},
    "quantise, 4 bits": {"downlink": "replicated", "downlink_compressor": "quantise", "downlink_bits": 4},
    "top_k, 5 %": {"downlink": "replicated", "downlink_compressor": "top_k", "downlink_fraction": 0.05},
    "sign": {"downlink": "replicated", "downlink_compressor": "sign"},
}


def heard(run: Run) -> np.ndarray:
    """Downlink bits so far, headers included: [seed, round]."""
    return ledger.downlink_bits(run.record["downlink_bits"].values, run.record["participated"].values)


def main(out: Path, figure: str = "fig4", method: str = "AWAPG", participation: str = "1") -> None:
    config = next(entry.config for entry in lineup(FIGURES[figure], "recommended") if entry.label == method)
    config = replace(config, participation=float(participation))
    runs = {}
    for label, options in DOWNLINKS.items():
        path = out / "-".join([figure, method, participation, label]).replace(" ", "").replace(",", "").replace("%", "")
        if path.is_dir():
            runs[label] = resume(path)
        else:
            runs[label] = train(replace(config, method=replace(config.method, **options)), path)
    comparison = compare({label: to_curve(load(run.path).record) for label, run in runs.items()}, reference="dense")

    header = [
        "downlink",
        "final score [95 %]",
        "minus dense's [95 %]",
        "rounds to 90 %",
        "Mbit down",
        "fewer",
        "in all",
        "fewer",
    ]
    table = Table(*header, title=f"{figure}, {method}, participation {participation}")
    spent = {}
    for label, row in comparison.rows.items():
        hit = row.costs[0.90].rounds.value
        bits = heard(runs[label]).mean(0)
        spent[label] = bits[int(hit) - 1] if np.isfinite(hit) else np.inf, bits[-1]
        savings = [first / own for first, own in zip(spent["dense"], spent[label], strict=True)]
        table.add_row(
            label,
            interval(row.final),
            interval(row.difference),
            f"{hit:.0f}",
            *(
                text
                for own, saving in zip(spent[label], savings, strict=True)
                for text in (f"{own / 1e6:.2f}", f"{saving:.1f}")
            ),
        )
    Console(width=140).print(table)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
