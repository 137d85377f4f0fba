"""Methods: choices of parts. Parts are made inside the compiled function, so that their hyperparameters can be traced."""

from lapg.methods.assembly import Setting, assemble, compose, make_parts
from lapg.methods.making import choose, make, settings, signature_of
from lapg.methods.parts import Part
from lapg.methods.preset import KINDS, PREFERRED, Preset
from lapg.methods.presets import PRESETS
from lapg.methods.registry import REGISTRY, resolve

__all__ = [
    "KINDS",
    "PREFERRED",
    "PRESETS",
    "REGISTRY",
    "Part",
    "Preset",
    "Setting",
    "assemble",
    "choose",
    "compose",
    "make",
    "make_parts",
    "resolve",
    "settings",
    "signature_of",
]
