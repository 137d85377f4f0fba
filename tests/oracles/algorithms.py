"""Algorithms 1 and 2 of arXiv 1812.03239 in plain NumPy, equation by equation; nothing of the library is used.

A policy is a list of layers ``(W [M, inputs, outputs], b [M, outputs])``, one network per agent. ``θ`` is the agents' parameters one after the other, each
agent's layers in order, W before b.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import numpy as np

ACTIVATIONS = {
    "relu": (lambda z: np.where(z > 0, z, 0.0), lambda z: np.where(z > 0, 1.0, 0.0)),
    "softplus": (lambda z: np.log1p(np.exp(-np.abs(z))) + np.maximum(z, 0), lambda z: 1 / (1 + np.exp(-z))),
    "tanh": (np.tanh, lambda z: 1 - np.tanh(z) ** 2),
}


class Round(NamedTuple):
    """One iteration k: θ^k, both sides of (16) and decision per learner, ∇̂^k, θ^{k+1}."""

    theta: np.ndarray
    left: np.ndarray
    right: np.ndarray
    sent: np.ndarray
    aggregate: np.ndarray
    after: np.ndarray


def unflatten(theta, widths, num_agents):
    layers, begin = [], 0
    per_agent = theta.reshape(num_agents, -1)
    for n, m in pairwise(widths):
        weight = per_agent[:, begin : begin + n * m].reshape(num_agents, n, m)
        begin += n * m
        layers.append((weight, per_agent[:, begin : begin + m]))
        begin += m
    return layers


def flatten(layers):
    num_agents = layers[0][0].shape[0]
    parts = [part[agent].ravel() for agent in range(num_agents) for layer in layers for part in layer]
    return np.concatenate(parts)


def log_softmax(logits):
    top = logits.max()
    return logits - top - np.log(np.sum(np.exp(logits - top)))


def log_probs(layers, agent, observation, activation="relu"):
    """Log π_m(·|s; θ_m)."""
    value = observation
    for depth, (weight, bias) in enumerate(layers):
        value = (ACTIVATIONS[activation][0](value) if depth else value) @ weight[agent] + bias[agent]
    return log_softmax(value)


def score(layers, observation, actions, activation="relu"):
    """∇ log π(a|s; θ) of the joint policy Π_m π_m(a_m|s; θ_m), by back-propagation written out."""
    function, derivative = ACTIVATIONS[activation]
    gradients = [(np.zeros_like(weight), np.zeros_like(bias)) for weight, bias in layers]
    for agent, action in enumerate(actions):
        inputs, sums = [observation], []
        for depth, (weight, bias) in enumerate(layers):
            sums.append(inputs[-1] @ weight[agent] + bias[agent])
            if depth + 1 < len(layers):
                inputs.append(function(sums[-1]))
        back = -np.exp(log_softmax(sums[-1]))
        back[action] += 1.0
        for depth in reversed(range(len(layers))):
            gradients[depth][0][agent] = np.outer(inputs[depth], back)
            gradients[depth][1][agent] = back
            if depth:
                back = (layers[depth][0][agent] @ back) * derivative(sums[depth - 1])
    return flatten(gradients)


def gpomdp(layers, observations, actions, losses, discount):
    """(10) for each trajectory, as the double sum that it is: [N, d]; t = 0..T−1."""
    gradients = []
    for n in range(losses.shape[0]):
        total = 0.0
        for t in range(losses.shape[1]):
            inner = 0.0
            for tau in range(t + 1):
                inner = inner + score(layers, observations[n, tau], actions[n, tau])
            total = total + inner * discount**t * losses[n, t]
        gradients.append(total)
    return np.stack(gradients)


def mean_and_noise(gradients):
    """ḡ and the sample variance of ḡ, Σ_n ‖g_n − ḡ‖² / (N(N−1))."""
    num = len(gradients)
    mean = sum(gradients) / num
    return mean, sum(np.dot(g - mean, g - mean) for g in gradients) / (num * (num - 1))


def algorithm_1(
    theta: np.ndarray,
    trajectories: Callable[..., tuple[np.ndarray, np.ndarray, np.ndarray]],
    *,
    widths: tuple[int, ...],
    num_learners: int,
    num_rounds: int,
    step_size: float,
    momentum: float,
    discount: float,
) -> list[Round]:
    """PG (11), with heavy ball. ``trajectories: k, m, θ → observations [N, T, n], actions [N, T, M], losses [N, T]``."""
    rounds, before = [], theta
    for k in range(num_rounds):
        layers = unflatten(theta, widths, num_learners)
        batches = [gpomdp(layers, *trajectories(k, m, theta), discount) for m in range(num_learners)]
        aggregate = sum(mean_and_noise(batch)[0] for batch in batches)
        after = theta - step_size * aggregate + momentum * (theta - before)
        nobody = np.zeros(num_learners)
        rounds.append(Round(theta, nobody, nobody, np.full(num_learners, True), aggregate, after))
        before, theta = theta, after
    return rounds


def algorithm_2(
    theta: np.ndarray,
    trajectories: Callable[..., tuple[np.ndarray, np.ndarray, np.ndarray]],
    *,
    widths: tuple[int, ...],
    num_learners: int,
    num_rounds: int,
    step_size: float,
    momentum: float,
    discount: float,
    xi: tuple[float, ...],
    noise_weight: float,
) -> list[Round]:
    """LAPG (12), (13), (16), with heavy ball: everybody uploads first; then iff ‖δ‖² > drift + c σ̂²."""
    rounds, history = [], [theta] * (len(xi) + 1)  # θ^{1−D} = ... = θ^1
    aggregate, lagged = 0.0, [0.0] * num_learners
    for k in range(num_rounds):
        theta = history[-1]
        layers = unflatten(theta, widths, num_learners)
        drift = 0.0
        for d in range(1, len(xi) + 1):
            step = history[-d] - history[-d - 1]  # θ^{k+1−d} − θ^{k−d}
            drift += xi[d - 1] * np.dot(step, step)
        drift /= step_size**2 * num_learners**2
        left, right, sent = [], [], []
        for m in range(num_learners):
            gradient, noise = mean_and_noise(gpomdp(layers, *trajectories(k, m, theta), discount))
            innovation = gradient - lagged[m]
            left.append(np.dot(innovation, innovation))
            right.append(drift + noise_weight * noise)
            sent.append(k == 0 or left[m] > right[m])
            if sent[m]:
                aggregate = aggregate + innovation
                lagged[m] = gradient
        after = theta - step_size * aggregate + momentum * (theta - history[-2])
        rounds.append(Round(theta, np.array(left), np.array(right), np.array(sent), aggregate, after))
        history.append(after)
    return rounds
