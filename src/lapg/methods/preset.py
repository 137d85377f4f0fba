"""What a method is: a choice of parts, of which any can be another one, and any option another value, in a configuration that names the method."""

from typing import NamedTuple

from lapg.methods.parts import Part

KINDS = ("optimiser", "local", "variance_reduction", "memory", "trigger", "compressor", "step_limit", "downlink")
"""The kinds of parts that a method chooses."""
PREFERRED = ("policy", "rollout", "estimator")
"""The kinds of parts of an experiment that a method may prefer."""


class Preset(NamedTuple):
    """A method: what it is, and its parts. Those that it does not name are the defaults: plain steps, no own steps, fresh gradients, always, whole.

    Those in `PREFERRED` are what an experiment with this method has where it says nothing of them.
    """

    about: str
    optimiser: Part = Part()
    local: Part = Part()
    variance_reduction: Part = Part()
    memory: Part = Part()
    trigger: Part = Part()
    compressor: Part = Part()
    step_limit: Part = Part()
    downlink: Part = Part()
    policy: Part = Part()
    rollout: Part = Part()
    estimator: Part = Part()


REUSED, GATHERED = Part("lagged"), Part("accumulator")
FOLLOWED, FORWARDED = Part("replicated"), Part("forwarded")
LOSSLESS = Part("replicated", compressor=Part("lossless"))
"""Downlinks of methods that are silent most of the time; uploads of few bits an entry are told as they came, sums of few entries without the others."""
