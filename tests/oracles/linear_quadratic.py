"""Linear dynamics, quadratic losses and a linear normal policy in plain NumPy: exact Q and the slopes it gives."""

import numpy as np


def state_action_values(gain, dynamics, inputs, state_loss, action_loss, std, process_noise, discount, num_steps):
    """Q_t(s, a) = (s, a, 1) H_t (s, a, 1)ᵀ of a ~ N(gain s, std² I) within T steps, H [T, n + A + 1, n + A + 1]."""
    num_actions, num_states = gain.shape
    transition = np.hstack([dynamics, inputs])
    stage = np.zeros((num_states + num_actions,) * 2)
    stage[:num_states, :num_states], stage[num_states:, num_states:] = state_loss, action_loss
    value, constant = np.zeros((num_states, num_states)), 0.0
    tables = np.zeros((num_steps, *(num_states + num_actions + 1,) * 2))
    act = np.vstack([np.eye(num_states), gain])
    for t in reversed(range(num_steps)):
        quadratic = stage + discount * transition.T @ value @ transition
        constant = discount * (constant + process_noise**2 * np.trace(value))
        tables[t, :-1, :-1], tables[t, -1, -1] = quadratic, constant
        value = act.T @ quadratic @ act
        constant += std**2 * np.trace(quadratic[num_states:, num_states:])
    return tables


def followed_slopes(tables, gain, dynamics, inputs, initial, std, process_noise, discount):
    """Σ_t γ^t E[∇_gain (gain s) ∇_a Q_t(s, gain s)] over the states of a ~ N(gain s, std² I); the policy of Q may be another one."""
    num_actions, num_states = gain.shape
    moment, total = initial, np.zeros_like(gain)
    closed = dynamics + inputs @ gain
    for t, table in enumerate(tables):
        across = table[num_states : num_states + num_actions, :num_states]
        within = table[num_states : num_states + num_actions, num_states : num_states + num_actions]
        total += discount**t * 2 * (across + within @ gain) @ moment
        moment = closed @ moment @ closed.T + std**2 * inputs @ inputs.T + process_noise**2 * np.eye(num_states)
    return total
