"""Runs of format 2, whose configurations were flat: tests/data/format2.tar.xz, made by the last version that wrote it."""

import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lapg import Config, Part, RunError, load, resume
from lapg.experiments.build import build
from lapg.experiments.config import Choice, from_dict, to_dict
from lapg.experiments.convert import from_format_2, from_format_3

COMMON = Config(
    problem=Part("quadratic", num_learners=2, dimension=3, noise=1.0),
    estimator=Part("noisy"),
    batch_size=4,
    rounds=4,
    seeds=1,
    chunk_rounds=2,
)
RUNS = {
    "pg": Choice("pg", optimiser=Part("sgd", step_size=0.02, momentum=0.5)),
    "scout": Choice(
        "scout",
        optimiser=Part("sgd", step_size=0.02),
        trigger=Part(threshold=1.0),
        compressor=Part("quantise", bits=3),
        downlink=Part("replicated", compressor=Part("quantise", bits=4)),
    ),
    "staggered": Choice(
        "periodic",
        optimiser=Part("sgd", step_size=0.02),
        trigger=Part(period=2.0, phase="staggered"),
        local=Part("sgd", step_scale=1.0),
    ),
    "lapg": Choice(
        "lapg",
        optimiser=Part("sgd", step_size=0.02),
        trigger=Part(xi=(0.05, 0.04), window=2, noise_weight=1.0, max_age=None, displacement_scale=0.05),
    ),
    "unfinished": Choice("awapg", optimiser=Part("sgd", step_size=0.02, decay=0.01), trigger=Part(threshold=1.0)),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("format2")
    with tarfile.open(Path(__file__).parent / "data" / "format2.tar.xz") as archive:
        archive.extractall(place, filter="data")
    return place / "format2"


def test_renamed_variables_are_read(place):
    """Oracle: by hand: both sides of lapg's condition, of which uploads after round 0 exceed one; a header went to both learners in all rounds."""
    record = load(place / "lapg").record
    assert not {"trigger_left", "trigger_right", "heard"} & set(record.data_vars)
    fires = record["trigger_statistic"] > record["trigger_threshold"]
    np.testing.assert_array_equal(fires[:, 1:], record["sent"][:, 1:])
    assert record["contacted"].all()


def test_renamed_settings_are_read():
    """Oracle: by hand, the setting under its name today, and the downlink that was the default then, or what was named."""
    old = {"runtime": "ray", "cluster": {"patience": 7, "quorum": 2}}
    for convert in (from_format_3, from_format_2):
        found = from_dict(convert(old))
        assert (found.cluster.max_silent_rounds, found.cluster.quorum, found.downlink) == (7, 2, Part("dense"))
    assert from_dict(from_format_3(to_dict(COMMON))) == replace(COMMON, downlink=Part("dense"))
    for kept in ({"downlink": {"name": "replicated"}}, {"method": "scout_ppo"}):
        assert from_format_3(kept) == kept


@pytest.mark.parametrize("name", RUNS)
def test_runs_of_format_2_are_read(place, name):
    """Oracle: by hand, the tables that say what the flat settings said; the record is what it was; the parts can be built."""
    run = load(place / name)
    then = {} if name == "scout" else {"downlink": Part("dense")}
    assert run.config == COMMON.playing(RUNS[name].but(**then))
    assert run.record.sizes["round"] == (2 if name == "unfinished" else 4)
    assert run.finished == (name != "unfinished")
    assert np.isfinite(run.params()).all()
    assert run.built.problem.num_learners == 2


def test_runs_of_format_2_are_not_resumed(place):
    """Oracle: one line with the remedy; a finished one has nothing to resume."""
    with pytest.raises(RunError, match=r"must be of format 4 to be resumed, got 2: .* --init-from ") as error:
        resume(place / "unfinished", show_progress=False)
    assert "\n" not in str(error.value)
    assert resume(place / "pg", show_progress=False).finished


METHOD = {"name": "scout", "first_upload": None}


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ({"optimiser": "adam", "step_size": 0.1, "decay": 0.5}, {"optimiser": Part("adam", step_size=0.1, decay=0.5)}),
        ({"first_upload": "none", "max_age": 5}, {"trigger": Part(first_upload=None, max_age=5)}),
        ({"kl_limit": "none"}, {"step_limit": Part("unlimited")}),
        ({"kl_limit": 5.0, "limit_look_ahead": True}, {"step_limit": Part("kl", limit=5.0, local=True)}),
        ({"compressor": "qsgd", "compressor_bits": 4}, {"compressor": Part("qsgd", levels=7)}),
        ({"compressor": "none", "upload_every": 3}, {"compressor": Part("identity"), "upload_every": 3}),
        ({"downlink": "replicated", "downlink_compressor": "uploads"}, {"downlink": Part("forwarded")}),
        ({"name": "lapg", "average_weight": 0.2, "xi": [0.1]}, {"memory": Part("running_average", weight=0.2), "trigger": Part(xi=0.1)}),
        ({"name": "random", "memory": "average", "rate": 0.5}, {"memory": Part("running_average", weight=0.1), "trigger": Part(rate=0.5)}),
        ({"name": "lasg_wk1", "options": {"snapshot_period": 5}}, {"trigger": Part(measure=Part(period=5))}),
        ({"name": "storm_pg", "average_weight": 0.3}, {"variance_reduction": Part(weight=0.3)}),
        ({"name": "dasha", "options": {"correction": 0.3}}, {"memory": Part(correction=0.3)}),
    ],
)  # fmt: skip
def test_flat_settings_become_options_of_parts(method, expected):
    """Oracle: by hand, where each setting has gone."""
    found = from_dict(from_format_2({"method": METHOD | method}))
    others = {"optimiser": Part("sgd"), "downlink": Part("dense")} | expected
    assert found.choice == Choice((METHOD | method)["name"], **others)


def test_older_runs_keep_the_defaults_they_began_with():
    """Oracle: a configuration from before three settings existed: what it left out is what it was then."""
    found = from_dict(from_format_2({"method": {"name": "scout"}}))
    assert (found.step_limit, found.trigger) == (Part("unlimited"), Part(threshold=2560.0, first_upload=None))


def test_policies_stand_beside_problems():
    """Oracle: the settings of a problem's network are its policy's; a factory of one's own keeps its arguments, and smoothing is on top."""
    old = {"name": "garnet", "hidden": None, "smoothing": 0.5, "options": {"branching": 2}}
    found = from_dict(from_format_2({"problem": old}))
    assert (found.problem, found.policy, found.smoothing) == (Part("garnet", branching=2), Part(), 0.5)
    found = from_dict(from_format_2({"problem": {"name": "cart_pole", "hidden": [8], "activation": "relu"}}))
    assert (found.problem, found.policy) == (Part("cart_pole"), Part(hidden=(8,), activation="relu"))
    assert build(found).problem.policy.num_params == 5 * 8 + 9 * 2
    found = from_dict(from_format_2({"problem": {"name": "mine:own", "hidden": [8]}}))
    assert (found.problem, found.policy) == (Part("mine:own", hidden=[8]), Part())


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ({"name": "mine:recipe"}, "is a recipe of one's own .* write it as a lapg.methods.Preset"),
        ({"name": "svrpg", "variance_reduction": "storm"}, "variance_reduction on top of svrpg cannot be converted"),
        ({"optimiser": "rmsprop", "decay": 0.1}, "decay under optimiser rmsprop cannot be converted"),
    ],
)
def test_what_there_is_no_more_is_refused(method, message):
    """Oracle: the message."""
    with pytest.raises(ValueError, match=message):
        from_format_2({"method": METHOD | method})
