"""Finite Markov decision processes in plain NumPy: everything by enumerating all episodes, or by iterating Bellman's equation."""

from itertools import product

import numpy as np


def softmax(logits):
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def episodes(theta, transitions, losses, initial, num_steps):
    """All episodes: probability, states [T], actions [T], losses [T]."""
    num_states, num_actions = losses.shape
    policy = softmax(theta.reshape(num_states, num_actions))
    for path in product(range(num_states), repeat=num_steps):
        for acts in product(range(num_actions), repeat=num_steps):
            chance = initial[path[0]]
            for t in range(num_steps):
                chance *= policy[path[t], acts[t]]
                if t + 1 < num_steps:
                    chance *= transitions[path[t], acts[t], path[t + 1]]
            if chance > 0:
                yield chance, path, acts, losses[list(path), list(acts)]


def value_by_enumeration(theta, transitions, losses, initial, num_steps, discount):
    """E Σ_{t<T} γ^t ℓ(s_t, a_t)."""
    weights = discount ** np.arange(num_steps)
    return sum(
        chance * (weights @ cost) for chance, _, _, cost in episodes(theta, transitions, losses, initial, num_steps)
    )


def score_moments(theta, transitions, losses, initial, num_steps, discount):
    """C[t, u] = E[(Σ_{τ≤t} ∇log π(a_τ|s_τ)) γ^u ℓ(s_u, a_u)], [T, T, d]."""
    policy = softmax(theta.reshape(losses.shape))
    weights = discount ** np.arange(num_steps)
    total = np.zeros((num_steps, num_steps, theta.size))
    for chance, path, acts, cost in episodes(theta, transitions, losses, initial, num_steps):
        scores = np.zeros((num_steps, *losses.shape))
        for t, (state, act) in enumerate(zip(path, acts, strict=True)):
            scores[t, state] -= policy[state]
            scores[t, state, act] += 1
        reach = np.cumsum(scores.reshape(num_steps, -1), 0)
        total += chance * reach[:, None] * (weights * cost)[None, :, None]
    return total


def value_by_iteration(theta, transitions, losses, initial, discount, num_sweeps):
    """V ← ℓ_π + γ P_π V, often."""
    policy = softmax(theta.reshape(losses.shape))
    step, cost = np.einsum("sa,sat->st", policy, transitions), np.sum(policy * losses, -1)
    values = np.zeros(losses.shape[0])
    for _ in range(num_sweeps):
        values = cost + discount * step @ values
    return initial @ values


def difference_quotient(function, point, width):
    """Central differences, entry by entry."""
    directions = np.eye(point.size) * width
    return np.array([(function(point + e) - function(point - e)) / (2 * width) for e in directions])
