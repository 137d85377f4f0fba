"""What tuning chose for the ready-made experiments: methods of preset recommended by label, on seeds that are never reported."""

from lapg.experiments.config import MethodConfig
from lapg.experiments.grids import XI

TWO_AGENTS = {
    "PG": MethodConfig("pg", 0.0025, decay=0.0),
    "LAPG": MethodConfig("lapg", 0.0025, xi=XI, noise_weight=0.5),
    "LAPG average": MethodConfig("lapg", 0.0025, xi=(0.0,), noise_weight=0.75, average_weight=0.05),
    "AWAPG": MethodConfig("awapg", 0.004, decay=4e-4, threshold=160.0),
    "periodic": MethodConfig("periodic", 0.004, decay=4e-4, period=40.0),
}
FIVE_AGENTS = {
    "PG": MethodConfig("pg", 0.0015, decay=0.0),
    "LAPG": MethodConfig("lapg", 0.0015, xi=XI, noise_weight=0.5),
    "AWAPG": MethodConfig("awapg", 0.0024, decay=4e-4, threshold=160.0),
    "periodic": MethodConfig("periodic", 0.0024, decay=4e-4, period=40.0),
}
"""PG's step was tuned by itself; AWAPG and the period take over two agents' settings: 1.6 times PG's step, the same decay, threshold and period."""
FIVE_SOFTPLUS_AGENTS = {
    "PG": MethodConfig("pg", 0.0011, decay=0.0),
    "LAPG": MethodConfig("lapg", 0.0011, xi=XI, noise_weight=0.5),
    "AWAPG": MethodConfig("awapg", 0.0011, decay=4e-4, threshold=160.0),
    "periodic": MethodConfig("periodic", 0.0011, decay=4e-4, period=20.0),
}

CART_POLES = {
    "PG": MethodConfig("pg", 1.5e-4, kl_limit=80.0),
    "LAPG": MethodConfig("lapg", 1.5e-4, xi=XI, noise_weight=0.5),
    "AWAPG": MethodConfig("awapg", 2e-4, threshold=40.0, kl_limit=20.0),
    "periodic": MethodConfig("periodic", 2e-4, period=5.0, kl_limit=80.0),
}
MIXED_CART_POLES = {
    "PG": MethodConfig("pg", 5e-5, kl_limit=80.0),
    "LAPG": MethodConfig("lapg", 5e-5, xi=XI, noise_weight=0.5),
    "AWAPG": MethodConfig("awapg", 2e-4, threshold=40.0, kl_limit=10.0),
    "periodic": MethodConfig("periodic", 2e-4, period=5.0, kl_limit=80.0),
}
SYSTEMS = {
    "PG": MethodConfig("pg", 1.5e-4, kl_limit=80.0),
    "LAPG": MethodConfig("lapg", 3e-4, xi=XI, noise_weight=1.0, kl_limit=80.0),
    "AWAPG": MethodConfig("awapg", 1.5e-4, decay=2e-3, threshold=10.0, kl_limit=5.0),
    "periodic": MethodConfig("periodic", 3e-4, period=20.0, kl_limit=80.0),
}
MIXED_SYSTEMS = {
    "PG": MethodConfig("pg", 1e-4, kl_limit=80.0),
    "LAPG": MethodConfig("lapg", 1.5e-4, xi=XI, noise_weight=1.0, kl_limit=80.0),
    "AWAPG": MethodConfig("awapg", 1.5e-4, decay=2e-3, threshold=10.0, kl_limit=5.0),
    "periodic": MethodConfig("periodic", 1.5e-4, period=20.0, kl_limit=80.0),
}
PENDULUMS = {
    "PG": MethodConfig("pg", 5e-6),
    "LAPG": MethodConfig("lapg", 5e-6, xi=XI, noise_weight=0.5),
    "AWAPG": MethodConfig("awapg", 1e-5, threshold=5.0, kl_limit=80.0),
    "periodic": MethodConfig("periodic", 1e-5, period=3.0, kl_limit=80.0),
}
MIXED_PENDULUMS = {
    "PG": MethodConfig("pg", 2e-5, kl_limit=80.0),
    "LAPG": MethodConfig("lapg", 2.5e-6, xi=XI, noise_weight=0.5),
    "AWAPG": MethodConfig("awapg", 1e-5, threshold=5.0, kl_limit=80.0),
    "periodic": MethodConfig("periodic", 1e-5, period=3.0, kl_limit=80.0),
}
"""Parallel RL; docs/parallel.md says how these numbers were chosen, and how unequal the budgets were."""
