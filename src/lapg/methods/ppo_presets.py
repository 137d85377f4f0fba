"""Methods for learners with PPO and an optimiser of their own: what travels between them, today's rivals among them."""

from lapg.methods.parts import Part
from lapg.methods.preset import FOLLOWED, FORWARDED, GATHERED, LOSSLESS, Preset


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

ON_PPO: dict[str, Preset] = {
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
}
