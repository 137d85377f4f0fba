"""lapg's PPO with one learner beside Stable-Baselines3's, the same hyperparameters and environments.

    python benchmarks/ppo.py CartPole-v1 Acrobot-v1 Pendulum-v1 [--steps 100000] [--seeds 10] [--normalise] [--inside]

Returns are means of stochastic episodes at the end of training, with 95 % bootstrap intervals over seeds; steps per second are those of training, episodes
that were played for the score included, compilation too. Stable-Baselines3 plays where it is installed (pip install stable-baselines3); it is no part
of lapg's extras. ``--inside`` plays lapg's own cart pole, compiled, as well. ``--normalise`` has both normalise observations by running moments.

What differs: one optimiser for actor and critic, whose gradients are clipped together, there; two here, values in units of the returns, and actions that tanh
squashes into their bounds instead of clipping.
"""

import argparse
import importlib.util
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from lapg import Config, EvaluationConfig, Part, train
from lapg.runtimes import use_all_cores

ENVIRONMENTS, ROW, EPISODES, MINIBATCHES, EPOCHS, STEP_SIZE = 8, 128, 10, 4, 10, 0.001
DISCOUNT, TRACE_DECAY, CLIP, MAX_NORM, HIDDEN = 0.99, 0.95, 0.2, 0.5, (64, 64)


def ours(problem: Part, steps: int, seeds: int, normalise: bool = False) -> tuple[np.ndarray, int]:
    """Returns at the end by seed, and steps played in all."""
    rounds = -(-steps // (ENVIRONMENTS * ROW))
    config = Config(
        method="ppo",
        problem=problem.__class__(problem.name, **problem.options, num_learners=1, discount=DISCOUNT),
        policy=Part("actor", hidden=HIDDEN, normalise=normalise),
        estimator=Part("ppo", clip=CLIP, trace_decay=TRACE_DECAY, critic=HIDDEN, critic_step_size=STEP_SIZE),
        rollout=Part("segments", num_steps=ROW),
        rounds=rounds + 1,
        seeds=seeds,
        batch_size=ENVIRONMENTS,
        evaluation=EvaluationConfig(every=rounds, episodes=EPISODES),
    ).but(
        local=Part(
            epochs=EPOCHS, minibatches=MINIBATCHES, max_norm=MAX_NORM, optimiser=Part("adam", step_size=STEP_SIZE)
        )
    )
    with tempfile.TemporaryDirectory() as folder:
        record = train(config, Path(folder) / "run", show_progress=False).record
    played = int(record["training_steps"].sum() + record["evaluation_steps"].sum())
    return record["return_raw"].isel(round=-1).mean("learner").values, played


def theirs(env: str, steps: int, seeds: int, normalise: bool = False) -> tuple[np.ndarray, int]:
    """The same of Stable-Baselines3."""
    import torch
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.evaluation import evaluate_policy
    from stable_baselines3.common.vec_env import VecNormalize

    torch.set_num_threads(1)

    def many(num: int, seed: int, **options: Any) -> Any:
        made = make_vec_env(env, num, seed=seed)
        return VecNormalize(made, norm_reward=False, **options) if normalise else made

    found, played = [], 0
    for seed in range(seeds):
        model = PPO(
            "MlpPolicy",
            many(ENVIRONMENTS, seed),
            learning_rate=STEP_SIZE,
            n_steps=ROW,
            batch_size=ENVIRONMENTS * ROW // MINIBATCHES,
            n_epochs=EPOCHS,
            gamma=DISCOUNT,
            gae_lambda=TRACE_DECAY,
            clip_range=CLIP,
            max_grad_norm=MAX_NORM,
            policy_kwargs={"net_arch": list(HIDDEN)},
            seed=seed,
            device="cpu",
        ).learn(steps)
        judged = many(1, 1000 + seed, training=False)
        if normalise:
            judged.obs_rms = model.get_vec_normalize_env().obs_rms
        returns, lengths = evaluate_policy(model, judged, EPISODES, deterministic=False, return_episode_rewards=True)
        found.append(np.mean(returns))
        played += model.num_timesteps + int(np.sum(lengths))
    return np.asarray(found), played


def interval(values: np.ndarray) -> str:
    """Mean and 95 % bootstrap interval over seeds."""
    draws = np.random.default_rng(0).choice(values, (10_000, values.size)).mean(1)
    low, high = np.quantile(draws, (0.025, 0.975))
    return f"{values.mean():.1f} [{low:.1f}, {high:.1f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("environments", nargs="+", help="ids of Gymnasium")
    parser.add_argument("--steps", type=int, default=100_000, help="of training, a seed")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--normalise", action="store_true", help="observations, on both sides")
    parser.add_argument("--inside", action="store_true", help="lapg's compiled cart pole, too")
    arguments = parser.parse_args()
    use_all_cores()
    steps, seeds, normalise = arguments.steps, arguments.seeds, arguments.normalise
    shown = Table(
        "environment", "PPO of", "return at the end", "steps / second", title=f"{steps:,} steps, {seeds} seeds"
    )
    players: list[tuple[str, str, Any]] = []
    for env in arguments.environments:
        players.append((env, "lapg", lambda env=env: ours(Part("gymnasium", env=env), steps, seeds, normalise)))
        if importlib.util.find_spec("stable_baselines3"):
            players.append((env, "Stable-Baselines3", lambda env=env: theirs(env, steps, seeds, normalise)))
    if arguments.inside:
        players.append(("cart_pole, compiled", "lapg", lambda: ours(Part("cart_pole"), steps, seeds)))
    console = Console()
    for env, who, play in players:
        start = time.perf_counter()
        returns, played = play()
        rate = played / (time.perf_counter() - start)
        shown.add_row(env, who, interval(returns), f"{rate:,.0f}")
        console.print(f"{env}, {who}: {interval(returns)}, {rate:,.0f} steps a second")
    console.print(shown)


if __name__ == "__main__":
    main()
