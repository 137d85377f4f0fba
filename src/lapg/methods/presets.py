"""Methods: choices of parts. Any part can be another one, and any option another value, in a configuration that names the method."""

from typing import NamedTuple

from lapg.methods.parts import Part

KINDS = ("optimiser", "local", "variance_reduction", "memory", "trigger", "compressor", "step_limit", "downlink")
"""The kinds of parts that a method chooses."""
PREFERRED = ("policy", "rollout", "estimator")
"""The kinds of parts of an experiment that a method may prefer."""


class Preset(NamedTuple):
    """A method: what it is, and its parts. Those that it does not name are the defaults: plain steps, no own steps, fresh gradients, always, whole.

    Those in `PREFERRED` are what an experiment with this method has where it says nothing of them.
    """

    about: str
    optimiser: Part = Part()
    local: Part = Part()
    variance_reduction: Part = Part()
    memory: Part = Part()
    trigger: Part = Part()
    compressor: Part = Part()
    step_limit: Part = Part()
    downlink: Part = Part()
    policy: Part = Part()
    rollout: Part = Part()
    estimator: Part = Part()


REUSED, GATHERED = Part("lagged"), Part("accumulator")
FOLLOWED, FORWARDED = Part("replicated"), Part("forwarded")
LOSSLESS = Part("replicated", compressor=Part("lossless"))
"""Downlinks of methods that are silent most of the time; uploads of few bits an entry are told as they came, sums of few entries without the others."""


def _own_optimiser(name: str, **options: int) -> Part:
    """Local steps by an optimiser of the learner's own, as is usual for PPO."""
    return Part("optimise", optimiser=Part(name, step_size=0.001, eps=1e-5), max_norm=0.5, **options)


PPO: dict[str, Part] = {
    "optimiser": Part("mean"),
    "local": _own_optimiser("adam", epochs=10, minibatches=4),
    "memory": GATHERED,
    "step_limit": Part("unlimited"),
    "policy": Part("actor"),
    "rollout": Part("segments"),
    "estimator": Part("ppo"),
}
"""What the methods on PPO share."""
DILOCO = PPO | {
    "local": _own_optimiser("adamw", epochs=10, minibatches=4),
    "optimiser": Part("mean", step_size=0.7, momentum=0.9, nesterov=True),
    "downlink": FOLLOWED,
}

PRESETS: dict[str, Preset] = {
    "pg": Preset(
        "Policy gradient: everybody uploads every round (11). Source: arXiv 1812.03239, Algorithm 1.",
        memory=Part("fresh"),
        trigger=Part("always"),
    ),
    "lapg": Preset(
        "Lazily aggregated policy gradient: uploads the innovation when (16) holds. Source: arXiv 1812.03239, Algorithm 2.",
        memory=REUSED,
        trigger=Part("lazy"),
        downlink=FOLLOWED,
    ),
    "scout": Preset(
        "Learners scout ahead along their own gradients and report when they have been away for long and come far; the recommended method.",
        local=Part("sgd"),
        memory=GATHERED,
        trigger=Part("age_weighted"),
        compressor=Part("quantise", bits=4),
        downlink=FORWARDED,
    ),
    "awapg": Preset(
        "Age-weighted accumulated policy gradient: `scout` without steps of the learners' own, so that all sample at θ^k, and with whole messages.",
        memory=GATHERED,
        trigger=Part("age_weighted", threshold=160.0, max_age=200),
        downlink=FOLLOWED,
    ),
    "periodic": Preset(
        "Baseline: uploads every few rounds. With all together it is PG with larger batches and rarer steps.",
        memory=GATHERED,
        trigger=Part("periodic"),
        downlink=FOLLOWED,
    ),
    "random": Preset(
        "Baseline: every learner uploads by its own coin.",
        memory=GATHERED,
        trigger=Part("random"),
        downlink=FOLLOWED,
    ),
    "never": Preset(
        "Baseline: one upload in round 0, reused for ever: a constant direction.",
        memory=REUSED,
        trigger=Part("never"),
        downlink=FOLLOWED,
    ),
    "lag_wk": Preset(
        "LAG-WK: (16) without its noise term, the rule for exact gradients. Source: Chen et al., arXiv 1805.09965, eq. (15a).",
        memory=REUSED,
        trigger=Part("lazy", xi=0.1, noise_weight=0.0),
        downlink=FOLLOWED,
    ),
    "lag_ps": Preset(
        "LAG-PS: uploads when the policy has moved so far that L_m-smooth gradients could have changed. Source: arXiv 1805.09965, eq. (15b).",
        memory=REUSED,
        trigger=Part("lazy", xi=0.1, noise_weight=0.0, measure=Part("staleness")),
        downlink=FOLLOWED,
    ),
    "laq": Preset(
        "LAQ: 4-bit differences to what was uploaded last, skipped while they are small beside drift and quantisation errors. "
        "Source: Sun, Chen, Giannakis, Yang, arXiv 1909.07588, eq. (5) to (7).",
        memory=REUSED,
        trigger=Part("lazy", xi=0.08, noise_weight=0.0, max_age=100, measure=Part("quantised")),
        compressor=Part("quantise", bits=4, even=True),
        downlink=FORWARDED,
    ),
    "lasg_wk1": Preset(
        "LASG-WK1, under Adam CADA1: differences to the same batch's gradient at a snapshot, compared over time. "
        "Source: Chen, Guo, Sun, Yin, arXiv 2012.15469 and 2002.11360.",
        memory=REUSED,
        trigger=Part("lazy", xi=0.1, noise_weight=0.0, max_age=50, measure=Part("against_snapshot")),
        downlink=FOLLOWED,
    ),
    "lasg_wk2": Preset(
        "LASG-WK2, under Adam CADA2: the same batch's gradients at θ^k and at the last upload's parameters, by importance weights. "
        "Source: Chen, Guo, Sun, Yin, arXiv 2012.15469 and 2002.11360.",
        memory=REUSED,
        trigger=Part("lazy", xi=0.1, noise_weight=2.0, max_age=50, measure=Part("same_samples")),
        downlink=FOLLOWED,
    ),
    "clag": Preset(
        "CLAG: EF21's compressed differences, skipped while they are small beside the gradient's own change in a round. "
        "Source: Richtárik et al., arXiv 2202.00998.",
        memory=REUSED,
        trigger=Part("changed"),
        compressor=Part("top_k"),
        downlink=FOLLOWED,
    ),
    "lena": Preset(
        "Uploads accumulated gradients when they have become large, whatever their age, after LENA (Shokri Ghadikolaei, Stich, Jaggi, AISTATS 2021); "
        "scale, step and cap are those of `awapg`, so that the two differ in the age alone.",
        memory=GATHERED,
        trigger=Part("age_weighted", threshold=10.0, max_age=200, age_power=0.0),
        downlink=FOLLOWED,
    ),
    "qsgd": Preset(
        "QSGD: fresh gradients, rounded at random to 7 levels and unbiased. Source: Alistarh et al., arXiv 1610.02132.",
        compressor=Part("qsgd"),
    ),
    "ef14": Preset(
        "Error feedback: the largest 5 % of the accumulated gradients; the rest waits. Source: Stich, Cordonnier, Jaggi, arXiv 1809.07599.",
        memory=GATHERED,
        compressor=Part("top_k"),
    ),
    "ef_sign": Preset(
        "Signs with error feedback: one bit an entry; the rest waits. Source: Karimireddy, Rebjock, Stich, Jaggi, arXiv 1901.09847.",
        memory=GATHERED,
        compressor=Part("sign"),
    ),
    "ef21": Preset(
        "EF21: the largest 5 % of the difference between the gradient and what has been uploaded of it. Source: arXiv 2106.05203, Algorithm 2.",
        memory=REUSED,
        compressor=Part("top_k"),
    ),
    "ef21_sgdm": Preset(
        "EF21-SGDM: EF21 on a running average of the gradients. Source: Fatkhullin, Tyurin, Richtárik, arXiv 2305.15155.",
        memory=Part("running_average"),
        compressor=Part("top_k"),
    ),
    "dasha": Preset(
        "DASHA: differences of gradients, rounded at random, and never a dense upload; with variance reduction storm it is DASHA-MVR. "
        "Source: Tyurin and Richtárik, arXiv 2202.01268.",
        memory=Part("dasha"),
        compressor=Part("qsgd"),
    ),
    "fedavg": Preset(
        "Local policy gradient, FedAvg: between uploads learners take steps of their own, and their models are averaged. "
        "Source: McMahan et al., arXiv 1602.05629.",
        local=Part("averaging"),
        memory=GATHERED,
        trigger=Part("periodic"),
        downlink=FOLLOWED,
    ),
    "fedsvrpg_m": Preset(
        "FedSVRPG-M: FedAvg whose local steps follow the federation's direction, by importance-weighted gradients at its last parameters. "
        "Source: Wang et al., arXiv 2405.19499, Algorithm 1.",
        local=Part("averaging"),
        variance_reduction=Part("federated_momentum"),
        memory=GATHERED,
        trigger=Part("periodic"),
        step_limit=Part("unlimited"),
        downlink=FOLLOWED,
    ),
    "ppo": Preset(
        "PPO at every learner, whose displacements are averaged every round (FedPPO; with one learner it is PPO). Source: Schulman et al., "
        "arXiv 1707.06347.",
        **PPO,
    ),
    "a2c": Preset(
        "Advantage actor-critic at every learner, averaged every round: `ppo` with one step a batch. Source: Mnih et al., arXiv 1602.01783.",
        **PPO | {"local": _own_optimiser("adam")},
    ),
    "outer_ppo": Preset(
        "PPO at every learner; the controller takes a larger step along the mean displacement, with momentum. Source: arXiv 2411.00666.",
        **PPO | {"optimiser": Part("mean", step_size=1.5, momentum=0.5, nesterov=True)},
    ),
    "diloco": Preset(
        "PPO with AdamW at every learner, Nesterov steps at the controller every few rounds. Source: Douillard et al., arXiv 2311.08105.",
        **DILOCO,
        trigger=Part("periodic", period=10.0),
    ),
    "muloco": Preset(
        "`diloco` with Muon at every learner in place of AdamW. Source: Thérien et al., arXiv 2505.23725.",
        **DILOCO | {"local": _own_optimiser("muon", epochs=10, minibatches=4)},
        trigger=Part("periodic", period=10.0),
    ),
    "staggered_diloco": Preset(
        "`diloco` whose learners upload one after the other. Source: Liu et al., arXiv 2401.09135, for steps on each arrival.",
        **DILOCO,
        trigger=Part("periodic", period=10.0, phase="staggered"),
    ),
    "proxskip": Preset(
        "PPO at every learner, whose steps are corrected by control variates; one coin says for all when they upload. Source: arXiv 2202.09357, for plain "
        "steps (Scaffnew).",
        **PPO | {"local": _own_optimiser("adam", epochs=10, minibatches=4, control_variates=True)},
        trigger=Part("random", rate=0.1, shared=True),
        downlink=Part("replicated"),
    ),
    "sparseloco": Preset(
        "`diloco` without momentum outside, whose messages are the largest 3 % of the entries at 2 bits, with fading errors. Source: arXiv 2508.15706.",
        **PPO | {"memory": Part("accumulator", keep=0.95)},
        trigger=Part("periodic", period=10.0),
        compressor=Part("top_k", fraction=0.03, bits=2),
        downlink=FORWARDED,
    ),
    "pulseloco": Preset(
        "`diloco` that uploads those entries alone that show after rounding to bfloat16, as index and value both ways. Source: arXiv 2602.03839.",
        **DILOCO | {"memory": Part("visible"), "downlink": LOSSLESS},
        trigger=Part("periodic", period=10.0),
        compressor=Part("lossless"),
    ),
    "fedback": Preset(
        "PPO at learners that upload large displacements, by thresholds that keep a wanted rate. Source: arXiv 2411.19242.",
        **PPO,
        trigger=Part("budget"),
        downlink=FOLLOWED,
    ),
    "fda": Preset(
        "PPO at every learner; all upload when their reports say that the models are far apart. Source: arXiv 2405.20988.",
        **PPO,
        trigger=Part("model_variance"),
        downlink=LOSSLESS,
    ),
    "optimal_sampling": Preset(
        "PPO at learners that upload with a probability in proportion to their displacement, weighted by its inverse. Source: arXiv 2010.13723.",
        **PPO | {"memory": Part("fresh", restart=True)},
        trigger=Part("importance"),
        downlink=LOSSLESS,
    ),
    "scout_ppo": Preset(
        "SCOUT on PPO: learners sample where their own steps have led, and upload when age times displacement is large.",
        **PPO,
        trigger=Part("age_weighted"),
        compressor=Part("quantise", bits=4),
        downlink=FORWARDED,
    ),
    "svrpg": Preset(
        "SVRPG: policy gradient with snapshot variance reduction. Source: Papini et al., arXiv 1806.05618.",
        variance_reduction=Part("snapshot"),
    ),
    "storm_pg": Preset(
        "STORM-PG: policy gradient with recursive variance reduction. Source: Yuan et al., arXiv 2003.04302.",
        variance_reduction=Part("storm"),
    ),
}
