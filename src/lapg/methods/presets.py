"""The methods by name: those on gradients, and those on PPO."""

from lapg.methods.parts import Part
from lapg.methods.ppo_presets import ON_PPO
from lapg.methods.preset import FOLLOWED, FORWARDED, GATHERED, REUSED, Preset

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
    **ON_PPO,
    "svrpg": Preset(
        "SVRPG: policy gradient with snapshot variance reduction. Source: Papini et al., arXiv 1806.05618.",
        variance_reduction=Part("snapshot"),
    ),
    "storm_pg": Preset(
        "STORM-PG: policy gradient with recursive variance reduction. Source: Yuan et al., arXiv 2003.04302.",
        variance_reduction=Part("storm"),
    ),
}
