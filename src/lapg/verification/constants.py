"""The paper's slips in the constants of a problem: each printed form on a case that refutes it, and the corrected one on the same case."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lapg import theory
from lapg.policies import gaussian_linear, softmax_mlp
from lapg.problems import tabular
from lapg.types import Problem
from lapg.verification.bounds import gradients_of, spectral_norms
from lapg.verification.families import TABLE, gradients
from lapg.verification.play import compiled
from lapg.verification.rows import Row, compare, pair


def bandit(discount: float, num_steps: int | None) -> Problem:
    """One state, two actions, loss 1 for the first; for both where T is given, so that scores alone count."""
    losses = jnp.array([[[1.0, 0.0 if num_steps is None else 1.0]]])
    return tabular(jnp.ones((1, 2, 1)), losses, jnp.ones((1, 1)), num_steps=num_steps, discount=discount)


def slips() -> list[Row]:
    """V_m (31), L_m (18), F (17), σ_T (32), (35)."""
    rare = jnp.array([-6.0, 6.0])  # the first action is rare, and its score nearly √2 long
    one = jnp.ones(1)

    problem = bandit(0.2, 1)
    task = jax.tree.map(lambda leaf: leaf[0], problem.tasks)
    alone = gradients_of(problem, task, rare, np.zeros((1, 1), np.int32), np.zeros((1, 1), np.int32))
    deviation = jnp.linalg.norm(alone - gradients(problem, rare), axis=-1)
    forms = [theory.deviation_bound(TABLE.score, one, 0.2, 1, form=form) for form in ("printed", "corrected")]
    rows = pair("(31): V_m", "one step, two actions, γ=0.2", deviation, *forms)

    problem = bandit(0.05, None)
    value = problem.value
    assert value is not None
    task = jax.tree.map(lambda leaf: leaf[0], problem.tasks)
    grid = jnp.linspace(-3, 3, 61)
    curvature = spectral_norms(jax.lax.map(lambda x: jax.hessian(value, 1)(task, jnp.array([x, 0.0])), grid))
    forms = [theory.smoothness(TABLE, one, 0.05, form=form) for form in ("printed", "corrected")]
    rows += pair("(18): L_m", "bandit of two actions, γ=0.05", curvature.max(), *forms)

    apart = 0.5 * np.stack([np.ones(9), -np.ones(9)])[None]  # φ(s, a): every entry of the Hessian is at most 1/4
    bounds = theory.linear_softmax_bounds(apart)
    score = jax.grad(lambda params: jax.nn.log_softmax(jnp.asarray(apart[0]) @ params)[0])
    move = jnp.full(9, 1e-4)
    growth = jnp.linalg.norm(score(move) - score(-move)) / jnp.linalg.norm(2 * move)
    entries = jnp.max(jnp.abs(jax.jacobian(score)(jnp.zeros(9))))
    rows += pair(
        "(17), (49): scores are F-Lipschitz",
        "log-linear softmax, d=9, all entries of φ equal",
        growth,
        entries,
        bounds.hessian,
        rounding=1e-6,
    )

    steps = 60
    problem = bandit(0.2, steps)
    task = jax.tree.map(lambda leaf: leaf[0], problem.tasks)
    episode = np.zeros((1, steps), np.int32)
    size = jnp.linalg.norm(gradients_of(problem, task, rare, episode, episode))
    # (35) is (32) before its last factor 1/(1−γ) was lost
    derived = theory.truncation_bound(TABLE.score, one, 0.2, 0, form="printed") / 0.8
    rows += pair(
        "(33c), (35): terms of one episode from t=0 on",
        "bandit, γ=0.2, the rare action 60 times",
        size,
        derived,
        theory.truncation_bound(TABLE.score, one, 0.2, 0),
    )
    return rows + walk()


def walk(discount: float = 0.99, reach: int = 60) -> list[Row]:
    """(32): a walk whose one policy, the same everywhere, decides for all steps at once; the loss is 1 to the right of the start.

    After t steps the gradient has grown like √t, so that the whole of it is of order (1−γ)^{−3/2}.
    """
    size = 2 * reach + 1
    after = np.clip(np.arange(size)[:, None] + np.array([-1, 1]), 0, size - 1)
    losses = np.repeat((np.arange(size) > reach)[None, :, None], 2, 2).astype(float)
    first = (np.arange(size) == reach)[None].astype(float)
    short, whole = (
        tabular(jnp.eye(size)[after], jnp.asarray(losses), jnp.asarray(first), num_steps=steps, discount=discount)
        for steps in (1, None)
    )
    task = jax.tree.map(lambda leaf: leaf[0], short.tasks)

    def missing(params: Any) -> Any:
        everywhere = jnp.tile(params, size)
        assert whole.value is not None
        assert short.value is not None
        return whole.value(task, everywhere) - short.value(task, everywhere)

    forms = [theory.truncation_bound(TABLE.score, jnp.ones(1), discount, 1, form=f) for f in ("printed", "corrected")]
    left = jnp.linalg.norm(compiled(jax.grad(missing))(jnp.zeros(2)))
    return pair("(32): σ_T", f"walk of one policy everywhere, γ={discount}, T=1", left, *forms)


def assumption() -> list[Row]:
    """Assumption 2 where the paper says that it holds: normal policies, and networks."""
    normal, network = gaussian_linear(2, 1), softmax_mlp(2, (8, 8), 3)
    keys = jax.random.split(jax.random.key(0), 1000)
    here = jnp.array([1.0, -0.5])

    def length(policy: Any, params: Any, action: Any) -> Any:
        return jnp.linalg.norm(jax.grad(policy.log_prob)(params, here, action))

    params = normal.init(keys[0])
    usual = jax.vmap(lambda key: length(normal, params, normal.sample(normal.action_noise(key), params, here)[0]))(keys)
    theta = network.init(keys[0])
    nearby = jax.vmap(lambda action: length(network, theta, action))(jnp.arange(3))
    scaled = jax.vmap(lambda action: length(network, 10 * theta, action))(jnp.arange(3))
    assert normal.score_bounds is not None
    return [
        *pair(
            "Assumption 2: a finite G for normal policies",
            "action at 1,000; G as met on 1,000 draws",
            length(normal, params, jnp.array([1e3])),
            jnp.max(usual),
            normal.score_bounds.score,
        ),
        compare(
            "Assumption 2: one G for all θ of a network, printed",
            "ReLU network at 10 θ⁰; G as met at θ⁰",
            jnp.max(scaled),
            jnp.max(nearby),
            kind="printed",
        ),
    ]
