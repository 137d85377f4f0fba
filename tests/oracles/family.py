"""Other authors' rules in plain NumPy, on quadratics: g_m(θ; z^k) = slope_m(θ) + noise_m^k; nothing of the library is used.

Every function returns who uploads, [K, M], and what the controller steps along, [K, d]; ``thetas`` are the parameters of the run that is checked.
"""

from types import SimpleNamespace

import numpy as np


def squared(vector):
    return float(vector @ vector)


def exact(vector):
    return vector


def largest(fraction):
    """The ⌈fraction · d⌉ largest entries."""

    def compress(vector):
        kept = np.argsort(-np.abs(vector))[: int(np.ceil(fraction * vector.size - 1e-9))]
        return np.where(np.isin(np.arange(vector.size), kept), vector, 0)

    return compress


def signs(vector):
    """± the mean magnitude."""
    return np.where(vector < 0, -1, 1) * np.abs(vector).mean()


def laq_grid(bits):
    """(5), (6) of LAQ: q = ⌊(x + R)/(2τR) + 1/2⌋, decoded 2τR q − R, τ = 1/(2^b − 1)."""

    def compress(vector):
        radius, tau = np.abs(vector).max(), 1 / (2**bits - 1)
        return 2 * tau * radius * np.floor((vector + radius) / (2 * tau * radius) + 0.5) - radius

    return compress


def drift(thetas, k, xi, step, num_learners):
    moves = [squared(thetas[k + 1 - d] - thetas[k - d]) if k >= d else 0.0 for d in range(1, len(xi) + 1)]
    return xi @ np.array(moves) / (step * num_learners) ** 2


def lazy(thetas, slope, noise, fires, compress=exact, average_weight=1.0, cap=np.inf):
    """Learners that upload compressed differences to what they have uploaded, when ``fires(learner, drift-free facts)`` or the age is the cap."""
    rounds, num, dimension = noise.shape
    learners = [
        SimpleNamespace(index=m, uploaded=np.zeros(dimension), age=0, error=0.0, theta=thetas[0], last=None)
        for m in range(num)
    ]
    sent, aggregate = np.zeros((rounds, num), bool), np.zeros((rounds, dimension))
    for k in range(rounds):
        for m, own in enumerate(learners):
            gradient = slope(thetas[k])[m] + noise[k, m]
            own.value = gradient if k == 0 else (1 - average_weight) * own.value + average_weight * gradient
            own.k, own.gradient, own.noise, own.age = k, gradient, noise[k, m], own.age + 1
            own.innovation = own.value - own.uploaded
            own.decoded = compress(own.innovation)
            own.lost = squared(own.innovation - own.decoded)
            if fires(own) or own.age >= cap or k == 0:
                own.uploaded = own.uploaded + own.decoded
                own.age, own.error, own.theta, own.sent_gradient, sent[k, m] = 0, own.lost, thetas[k], gradient, True
                own.sent_correction = getattr(own, "correction", None)
            own.last = gradient
        aggregate[k] = sum(own.uploaded for own in learners)
    return sent, aggregate


def accumulated(thetas, slope, noise, fires, compress=exact):
    """Learners that upload what has come together, when ``fires``; the rest stays."""
    rounds, num, dimension = noise.shape
    held = np.zeros((num, dimension))
    sent, applied, age = np.zeros((rounds, num), bool), np.zeros((rounds, dimension)), np.zeros(num)
    reports, window = np.zeros(num), [[] for _ in range(num)]
    for k in range(rounds):
        scale = reports.sum()
        for m in range(num):
            gradient = slope(thetas[k])[m] + noise[k, m]
            held[m], age[m] = held[m] + gradient, age[m] + 1
            window[m].append(np.linalg.norm(gradient))
            own = np.mean(window[m])
            turn = (m + 1) * (5**0.5 - 1) / 2 % 1
            known = scale if sent[:k, m].any() else max(scale, num * own * turn)
            if fires(np.linalg.norm(held[m]), age[m], known):
                decoded = compress(held[m])
                held[m], applied[k], age[m] = held[m] - decoded, applied[k] + decoded, 0
                reports[m], window[m], sent[k, m] = own, [], True
    return sent, applied


def storm(thetas, slope, noise, weight):
    """Steps along v = g(θ^k) + (1 − β)(v − g(θ^{k−1})), both with this round's noise."""
    value, aggregate = None, []
    for k in range(len(noise)):
        here = slope(thetas[k]) + noise[k]
        value = here if k == 0 else here + (1 - weight) * (value - slope(thetas[k - 1]) - noise[k])
        aggregate.append(value.sum(0))
    return np.ones(noise.shape[:2], bool), np.array(aggregate)


def snapshots(thetas, slope, noise, period, num_batches):
    """Steps along v = g(θ^k) − g(θ̃) + μ, μ the mean of g(θ̃) over the first batches since the snapshot."""
    aggregate = []
    for k in range(len(noise)):
        begin = k - k % period
        there = slope(thetas[begin])
        mean = there + noise[begin : min(k + 1, begin + num_batches)].mean(0)
        aggregate.append((slope(thetas[k]) + noise[k] - there - noise[k] + mean).sum(0))
    return np.ones(noise.shape[:2], bool), np.array(aggregate)


def federated(start, slope, noise, step, period, weight):
    """Models of their own, stepped by M α and averaged every H rounds; FedSVRPG-M with β, and β = 1 is FedAvg. Returns θ after every round."""
    rounds, num, _ = noise.shape
    theta, before, mean, out = start, None, None, [start]
    models, moved = np.repeat(start[None], num, 0), np.zeros_like(noise[0])
    for k in range(rounds):
        value = np.stack([slope(models[m])[m] for m in range(num)]) + noise[k]
        if before is not None:
            value = value + (1 - weight) * (mean - slope(before) - noise[k])
        models, moved = models - num * step * value, moved + value
        if (k + 1) % period == 0:
            before, theta, mean = theta, models.mean(0), moved.mean(0) / period
            models, moved = np.repeat(theta[None], num, 0), np.zeros_like(moved)
        out.append(theta)
    return np.array(out)
