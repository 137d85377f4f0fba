"""The controller's optimisers: plain steps with momentum, and those of optax, all by a step size that may decay."""

import functools
import inspect
import math
import typing
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from lapg.controller import heavy_ball, inverse_time
from lapg.types import Policy, Scalar

TRIED = 10
"""Steps after which an optimiser must have gone downhill; a schedule may begin at 0."""
STEP_SIZE = 0.001


def sgd(step_size: Scalar = STEP_SIZE, *, momentum: Scalar = 0.0, decay: Scalar = 0.0) -> optax.GradientTransformation:
    """Plain steps, the paper's: θ^{k+1} = θ^k − α_k∇̂^k + β(θ^k − θ^{k−1}), heavy ball.

    Args:
      step_size: α.
      momentum: β of heavy ball, in [0, 1).
      decay: α_k = α/(1 + decay · k); 0 keeps the step size constant.
    Raises:
      ValueError: step_size is not positive, momentum lies outside [0, 1), or decay is negative.
    """
    return heavy_ball(step_size, momentum, decay)


def mean(
    step_size: Scalar = 1.0, *, momentum: Scalar = 0.0, nesterov: bool = False, num_learners: int
) -> optax.GradientTransformation:
    """Steps by the mean over the M learners of what has arrived, for learners with optimisers of their own (local optimise); 1 is averaging.

    Args:
      step_size: in units of the mean; where few upload at a time, M times a learner's weight.
      momentum: in [0, 1); of steps, rounds in which nobody uploads being none.
      nesterov: whether momentum looks ahead, as in DiLoCo, with step size 0.7 and momentum 0.9.
    Raises:
      ValueError: step_size is not positive, or momentum lies outside [0, 1).
    Source: Reddi et al., arXiv 2003.00295; Douillard et al., arXiv 2311.08105, for DiLoCo.
    """
    if nesterov:
        heavy_ball(step_size, momentum)  # refuses the same
        return optax.sgd(step_size / num_learners, momentum, nesterov=True)
    return heavy_ball(step_size / num_learners, momentum)


def muon(
    step_size: Scalar = STEP_SIZE,
    *,
    beta: float = 0.95,
    ns_steps: int = 5,
    rms: float = 0.2,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    policy: Policy,
) -> optax.GradientTransformation:
    """Muon, for learners' own steps on networks: momentum, of every weight matrix made orthogonal by Newton-Schulz; other entries by AdamW.

    Matrices are all weights of the policy, those of the first and the last layer included; filters of convolutions count as matrices with one column
    for every output.

    Args:
      step_size: α, of all entries.
      beta: of the momentum, which looks ahead (Nesterov).
      ns_steps: iterations of Newton-Schulz.
      rms: root mean square of a step's entries in units of α, whatever a matrix's shape; 0.2 is about that of AdamW.
      eps: added to denominators.
      weight_decay: of all entries, in units of α.
      policy: whose weights they are.
    Raises:
      ValueError: the policy does not say which entries make a matrix.
    Source: Jordan et al., Muon, 2024; Liu et al., arXiv 2502.16982, for ``rms``; as learners' optimiser, MuLoCo, arXiv 2505.23725.
    """
    shapes = policy.shapes
    if shapes is None:
        raise ValueError(
            "muon(policy=...) must be a policy that says which entries make a matrix, got one that does not; give Policy(shapes=...), or use adamw."
        )
    inner = optax.contrib.muon(
        step_size,
        beta=beta,
        ns_steps=ns_steps,
        consistent_rms=rms,
        eps=eps,
        weight_decay=weight_decay,
        adam_weight_decay=weight_decay,
    )
    ends = np.cumsum([math.prod(shape) for shape in shapes])

    def apart(vector: Float[Array, " d"]) -> list[Array]:
        *blocks, rest = jnp.split(vector, ends)
        pairs = zip(blocks, shapes, strict=True)
        return [block.reshape(-1, shape[-1]) if len(shape) > 1 else block for block, shape in pairs] + [rest]

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        found: Any = inner.update(apart(updates), state, None if params is None else apart(params))
        blocks, state = found
        return jnp.concatenate([block.ravel() for block in blocks]).astype(updates.dtype), state

    return optax.GradientTransformation(lambda params: inner.init(apart(params)), update)


def scheduled(factory: Callable[..., Any]) -> Callable[..., optax.GradientTransformation]:
    """An optimiser factory of optax's kind, whose first argument is a step size or a schedule, as one of ``step_size`` and ``decay``.

    ``decay`` makes the schedule α/(1 + decay · k); a factory that has an argument of this name keeps it for itself.
    """
    if factory in (sgd, mean, muon):
        return factory
    parameters = list(inspect.signature(factory).parameters.values())
    first, rest = parameters[0].name if parameters else None, parameters[1:]
    hints = {name: hint for name, hint in _hints(factory).items() if name not in (first, "return")}
    own = [inspect.Parameter("step_size", inspect.Parameter.KEYWORD_ONLY, default=STEP_SIZE)]
    if not any(parameter.name == "decay" for parameter in rest):
        own.append(inspect.Parameter("decay", inspect.Parameter.KEYWORD_ONLY, default=None))
    schedules = len(own) > 1

    @functools.wraps(factory)
    def make(*, step_size: Scalar = STEP_SIZE, **options: Any) -> Any:
        decay = options.pop("decay", None) if schedules else None
        return factory(step_size if decay is None else inverse_time(step_size, decay), **options)

    del make.__wrapped__
    keyword = [
        parameter.replace(kind=parameter.KEYWORD_ONLY)
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD
        else parameter
        for parameter in rest
    ]
    described: Any = make
    described.__signature__ = inspect.Signature(sorted([*own, *keyword], key=lambda parameter: parameter.kind))
    described.__annotations__ = {"step_size": Scalar, "decay": Scalar | None} | hints
    words = ["step_size: α.", *(["decay: α_k = α/(1 + decay · k); left out: constant."] if schedules else [])]
    described.__doc__ = _with_arguments(inspect.getdoc(factory) or "", words)
    return described


def _hints(factory: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(factory)
    except Exception:  # a user's own, with hints that cannot be resolved
        return {}


def _with_arguments(text: str, words: list[str]) -> str:
    """A docstring with arguments in front of those that it has."""
    before, _, after = text.partition("\nArgs:\n")
    edge = " " * ((len(after) - len(after.lstrip(" "))) or 2)
    return "\n".join([before, "Args:", *(edge + line for line in words), after])


def check_descent(name: str, optimiser: Any, size: int) -> None:
    """Refuses what is no optimiser, and what goes uphill: optax adds updates, so that their sign is the optimiser's business.

    Args:
      size: d.
    Raises:
      ValueError: it is one of these.
    """
    if not (callable(getattr(optimiser, "init", None)) and callable(getattr(optimiser, "update", None))):
        raise ValueError(
            f"optimiser {name!r} must return an optax optimiser, got {type(optimiser).__name__}; it is called with a step size."
        )
    params = jnp.ones(size)
    slope = jnp.where(jnp.arange(size) % 2 == 0, 1.0, -1.0)  # orthogonal to θ, so that shrinking θ counts for nothing

    def step(carry: Any, _: None) -> tuple[Any, None]:
        theta, state = carry
        updates, state = optimiser.update(slope, state, theta)
        return (optax.apply_updates(theta, updates), state), None

    start = (params, optimiser.init(params))
    (after, _), _ = jax.jit(lambda: jax.lax.scan(step, start, length=TRIED))()
    rise = float(slope @ (after - params))
    if not rise <= 0:
        raise ValueError(
            f"optimiser {name!r} must step against the gradient, but {TRIED} steps along one gradient changed the loss by {rise:+.3g}; "
            "end its chain with optax.scale_by_learning_rate(step_size), which turns the sign."
        )
