"""Choices of parts: what a factory's signature says, how changes are laid over a method's parts, and what is made of them."""

from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lapg import estimators, methods
from lapg.methods import KINDS, PRESETS, REGISTRY, Part, Preset, choose, compose, make, settings, signature_of
from lapg.methods.parts import as_table, from_table, merged
from lapg.methods.registry import DEFAULTS, named, resolve
from lapg.methods.signatures import REQUIRED, Option, signature
from lapg.problems import quadratic
from lapg.types import Compressor, Scalar, Trigger
from lapg.uplink.compressors import identity
from lapg.uplink.triggers import always


def rule(
    weight: Scalar,
    *,
    sizes: Sequence[int] = (1, 2),
    how: Literal["a", "b"] = "a",
    age: int | None = None,
    codec: Compressor | None = None,
    anything: Any = None,
    num_learners: int,
    num_rounds: int | None,
    step_size: Scalar,
) -> Trigger:
    """A rule of one's own.

    It has a second paragraph.

    Args:
      weight: what it weighs,
        on two lines.
      sizes, how: of two kinds.
      age: in rounds: not years.
    Raises:
      ValueError: weight is negative.
    """
    if weight == -1:
        raise ValueError(f"rule(weight=...) must be >= 0, got {weight}; rule(step_size=...) and rule(other=...) stay.")
    return always()


def test_a_signature_by_hand():
    """Oracle: by hand: hints as choices, defaults, the words of Args, what may be traced, and what the run supplies, of which None is no option."""
    found = signature("trigger", rule)
    assert found.options == {
        "weight": Option((float,), REQUIRED, "what it weighs, on two lines.", True),
        "sizes": Option((tuple[int, ...],), (1, 2), "of two kinds.", False),
        "how": Option((Literal["a", "b"],), "a", "of two kinds.", False),
        "age": Option((int, type(None)), None, "in rounds: not years.", False),
        "codec": Option(found.options["codec"].choices, None, "", False),
        "anything": Option((Any,), None, "", False),
    }
    assert methods.making.nested_kind(found.options["codec"]) == "compressor"
    assert found.supplied == {"num_learners": False, "num_rounds": True, "step_size": False}
    assert (found.summary, found.anything) == ("A rule of one's own.", False)


@pytest.mark.parametrize("kind", [kind for kind in REGISTRY if kind != "method"])
def test_every_built_in_part_says_what_it_is(kind):
    """Oracle: the house's rules: a docstring, words for every option that has a flag, and a default that is one of its choices."""
    ours = [name for name in REGISTRY[kind] if kind != "optimiser" or name == "sgd"]
    for name in ours:
        found = signature_of(kind, name)
        assert found.summary, name
        for option, (choices, default, words, _) in found.options.items():
            if choices != (Any,):
                assert words, (name, option)
            assert default is not None or type(None) in choices or choices == (Any,), (name, option)


def test_changes_are_laid_over():
    """Oracle: by hand: another name replaces the part, none or the same changes its options, in parts of parts too; nothing changes what was given."""
    below = Part("lazy", xi=0.1, measure=Part("staleness", smoothness=1.0))
    assert merged(below, Part()) == below
    assert merged(below, Part(xi=0.2, window=3)) == Part("lazy", xi=0.2, window=3, measure=below.options["measure"])
    assert merged(below, Part("lazy", xi=0.2)).options["measure"] == below.options["measure"]
    assert merged(below, Part("periodic")) == Part("periodic")
    deep = merged(below, Part(measure=Part(smoothness=2.0)))
    assert deep.options["measure"] == Part("staleness", smoothness=2.0)
    assert merged(below, Part(measure=Part("quantised"))).options["measure"] == Part("quantised")
    assert below == Part("lazy", xi=0.1, measure=Part("staleness", smoothness=1.0))
    assert from_table(as_table(Part("periodic", period=4.0))) == Part("periodic", period=4.0)
    assert as_table(deep) == {"name": "lazy", "xi": 0.1, "measure": {"name": "staleness", "smoothness": 2.0}}


def test_every_method_is_a_choice_of_parts_that_there_are():
    """Oracle: the registry: every part of every preset has its name there, and the options of its factory."""
    for name, preset in PRESETS.items():
        assert preset.about, name
        parts = choose(preset, {})
        assert tuple(parts) == KINDS
        for kind, part in parts.items():
            assert settings(kind, part).items() >= part.options.items(), (name, kind)
            assert not part.options.keys() - signature_of(kind, part.name).options.keys(), (name, kind)
    assert choose(PRESETS["pg"], {})["trigger"] == Part("always")
    assert {kind: part.name for kind, part in choose(Preset(""), {}).items()} == {
        kind: DEFAULTS[kind] for kind in KINDS
    }
    assert choose(PRESETS["pg"], {"step_limit": Part(limit=3.0)})["step_limit"] == Part("kl", limit=3.0)


RUN = {"num_learners": 2, "num_rounds": None, "step_size": 0.1}


def test_making_a_part():
    """Oracle: what the factory is called with: options, hyperparameters in their place, the run's own, and parts in parts made."""
    calls = []

    def watched(**given):
        calls.append(given)
        return always()

    part = Part(f"{__name__}:rule", weight=1.0, codec=Part("top_k", bits=4))
    make("trigger", part, RUN, {"trigger.weight": 7.0, "trigger.codec.fraction": 0.5, "memory.weight": 9.0})
    found = signature("trigger", rule)
    assert found is signature("trigger", rule)
    watched.__signature__ = __import__("inspect").signature(rule)
    watched.__annotations__ = rule.__annotations__
    make("trigger", part, RUN, {"trigger.weight": 7.0, "trigger.codec.fraction": 0.5}, factory=watched)
    (given,) = calls
    assert {name: given[name] for name in ("weight", *RUN)} == {"weight": 7.0, **RUN}
    message = given["codec"].compress(jax.random.key(0), jnp.arange(4.0))
    np.testing.assert_allclose(given["codec"].decompress(message), [0, 0, 2, 3], atol=0.5)
    assert set(given) == {"weight", "codec", *RUN}


@pytest.mark.parametrize(
    ("part", "run", "message"),
    [
        (Part("perodic"), RUN, r"trigger must be one of age_weighted, .* got 'perodic' \(did you mean 'periodic'\?\)"),
        (Part(f"{__name__}:nothing"), RUN, r"trigger=test_parts:nothing cannot be imported"),
        (Part(f"{__name__}:rule"), RUN, r"trigger 'test_parts:rule' needs weight; give trigger\.weight"),
        (Part(f"{__name__}:rule", weight=1.0, agee=3), RUN, r"trigger\.agee is not an option .*did you mean 'age'"),
        (Part(f"{__name__}:rule", weight=1.0, step_size=3), RUN, r"trigger\.step_size is not an option of trigger"),
        (
            Part(f"{__name__}:rule", weight=1.0),
            RUN | {"step_size": None},
            r"needs an optimiser with a step size, which",
        ),
        (
            Part(f"{__name__}:rule", weight=-1),
            RUN,
            r"trigger\.weight must be >= 0, got -1; optimiser\.step_size and rule\(other=\.\.\.\) stay",
        ),
        (
            Part(f"{__name__}:rule", weight=1.0, codec=Part("top_k", fraction=2.0)),
            RUN,
            r"trigger\.codec\.fraction must lie in \(0, 1\], got 2\.0",
        ),
    ],
)
def test_parts_that_cannot_be_made(part, run, message, unchecked):
    """Oracle: the message: the setting that was typed, the rule, the value and the remedy."""
    with pytest.raises(ValueError, match=message):
        make("trigger", part, run)


def test_names_of_factories():
    """Oracle: a built-in's own name, also of optax's functions, and MODULE:NAME; what has none is refused."""
    assert named("trigger", always) == "always"
    assert named("optimiser", optax.adam) == "adam"
    assert named("trigger", rule) == f"{__name__}:rule"
    with pytest.raises(ValueError, match="trigger must be a name, or a function at the top of a module"):
        named("trigger", lambda: 3)
    assert resolve("method", f"{__name__}:OWN").trigger == Part(f"{__name__}:rule", weight=2.0)
    with pytest.raises(
        ValueError, match=r"method must be a lapg\.methods\.Preset, .* got function; a rule of your own"
    ):
        resolve("method", f"{__name__}:rule")


OWN = Preset("A method of one's own.", trigger=Part(rule, weight=2.0), compressor=Part("identity"))


def test_parts_may_be_made_already():
    """Oracle: the same method by names: PG's upload of 3 float64."""
    problem = quadratic(num_learners=2, dimension=3)
    setting = methods.Setting(estimators.noisy(problem.gradient), 2, 2)
    made = compose("lapg", setting, trigger=always(), compressor=identity(), optimiser=optax.sgd(0.1))
    assert int(made.compressor.num_bits(jnp.zeros(3))) == 3 * 64
    assert made.controller.init(jnp.zeros(3), 2).trigger == ()
    with pytest.raises(ValueError, match="local 'sgd' needs an optimiser with a step size"):
        compose("scout", setting, optimiser=optax.sgd(0.1))
