"""Configurations of older runs: format 2 of config.json, from before every part had a table of its own, and format 3, with other defaults and names."""

from collections.abc import Mapping
from typing import Any

OPTIMISERS = {"heavy_ball": "sgd"}
MEMORIES = {"fresh": "fresh", "lagged": "lagged", "average": "running_average", "accumulate": "accumulator"}
THRESHOLD = 2560.0
"""κ of `scout` where none was given, before it followed the number of rounds."""

PLACES: dict[str, dict[str, str]] = {
    "lapg": {"average_weight": "memory.weight", "trigger_step_size": "trigger.displacement_scale"},
    "lag_ps": {"smoothness": "trigger.measure.smoothness"},
    "laq": {"error_weight": "trigger.measure.error_weight"},
    "lasg_wk1": {"snapshot_period": "trigger.measure.period"},
    "lasg_wk2": {"min_effective": "trigger.measure.min_effective"},
    "clag": {"threshold": "trigger.weight"},
    "ef21_sgdm": {"average_weight": "memory.weight"},
    "dasha": {"correction": "memory.correction"},
    "fedsvrpg_m": {"average_weight": "variance_reduction.weight"},
    "storm_pg": {"average_weight": "variance_reduction.weight"},
    "svrpg": {
        "snapshot_period": "variance_reduction.period",
        "num_batches": "variance_reduction.num_batches",
    },
}
"""Where arguments of a method are now; those that are not named went to its trigger, under their own names."""
POLICY = ("hidden", "activation", "std", "learned_std")
"""Settings of a problem that are its policy's now; arguments of a factory of one's own stay with it."""
STEPS = ("step_size", "momentum", "decay")
CLUSTER = {"patience": "max_silent_rounds"}
"""Settings of a cluster that have another name today, in runs of format 3 too."""
REPLICATED = ("diloco", "staggered_diloco", "sparseloco", "fedback", "scout_ppo")
"""Methods of format 3 whose downlink was not dense where none was named."""


def from_format_3(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration of format 3 with today's names, and with the downlink that was then the default."""
    new = _renamed(config)
    method = new.get("method", "scout")
    if ":" not in method and method not in REPLICATED:
        new["downlink"] = {"name": "dense"} | dict(new.get("downlink", {}))
    return new


def _renamed(config: Mapping[str, Any]) -> dict[str, Any]:
    cluster = {CLUSTER.get(name, name): value for name, value in config.get("cluster", {}).items()}
    return dict(config) | ({"cluster": cluster} if cluster else {})


def from_format_2(config: Mapping[str, Any]) -> dict[str, Any]:
    """The tables of a configuration (see `lapg.experiments.config.from_dict`) that say what a flat one of format 2 said.

    Raises:
      ValueError: it names a recipe of one's own, which is no choice of parts, or a combination that there is no more.
    """
    new = {
        name: value
        for name, value in _renamed(config).items()
        if name not in ("problem", "policy", "estimator", "method")
    }
    for kind in ("problem", "policy", "estimator"):
        new[kind] = _given(config.get(kind, {}))
    if ":" not in new["problem"].get("name", ""):
        new["policy"] |= {name: new["problem"].pop(name) for name in POLICY if name in new["problem"]}
    if (smoothing := new["problem"].pop("smoothing", None)) is not None:
        new["smoothing"] = smoothing
    return new | _method(_explicit(config.get("method", {})))


def _given(part: Mapping[str, Any]) -> dict[str, Any]:
    """What was not left out, options among it."""
    given = {name: value for name, value in part.items() if name != "options" and value is not None}
    return given | dict(part.get("options", {}))


def _explicit(method: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run from before ``first_upload``, with what it was then to leave ``kl_limit`` and κ out."""
    if "first_upload" in method:
        return dict(method)
    name, then = method.get("name", "scout"), dict[str, Any](kl_limit="none")
    if name in ("scout", "awapg", "lena"):
        then["first_upload"] = "none"
    if name == "scout":
        then["threshold"] = THRESHOLD
    return dict(method) | {key: value for key, value in then.items() if method.get(key) is None}


def _method(method: Mapping[str, Any]) -> dict[str, Any]:
    given = _given(method)
    name = given.pop("name", "scout")
    if ":" in name:
        raise ValueError(
            f"method.name = {name} is a recipe of one's own from an earlier version, which cannot be converted; "
            "write it as a lapg.methods.Preset, and start a new run."
        )
    new: dict[str, Any] = {"method": name}

    def put(place: str, value: Any) -> None:
        *tables, last = place.split(".")
        table = new
        for one in tables:
            table = table.setdefault(one, {})
        table[last] = value

    _optimiser(given, put)
    _compressor(given, put)
    _downlink(given, put)
    _step_limit(given, put)
    if (every := given.pop("upload_every", None)) is not None:
        put("upload_every", every)
    if (reduction := given.pop("variance_reduction", None)) is not None:
        if name in ("svrpg", "storm_pg", "fedsvrpg_m"):
            raise ValueError(
                f"method.variance_reduction on top of {name} cannot be converted; there is one of a method."
            )
        put("variance_reduction.name", reduction)
    if name in ("periodic", "random"):
        _memory(given, put)
    if (ahead := given.pop("look_ahead", None)) is not None:
        put("local", {"name": "sgd", "step_scale": ahead})
    if name == "lapg" and "average_weight" in given:
        put("memory.name", "running_average")
    for argument, value in given.items():
        if argument == "xi" and isinstance(value, list | tuple) and len(value) == 1:
            value = value[0]
        place = PLACES.get(name, {}).get(argument, f"trigger.{argument}")
        put(place, None if value == "none" else value)
    return new


def _optimiser(given: dict[str, Any], put: Any) -> None:
    name = given.pop("optimiser", "heavy_ball")
    if name == "rmsprop" and "decay" in given:
        raise ValueError("method.decay under optimiser rmsprop cannot be converted; its own decay has that name now.")
    put("optimiser.name", OPTIMISERS.get(name, name))
    for number in STEPS:
        if number in given:
            put(f"optimiser.{number}", given.pop(number))


def _codec(name: str, options: dict[str, Any]) -> dict[str, Any]:
    if name == "qsgd" and "bits" in options:
        options["levels"] = 2 ** (options.pop("bits") - 1) - 1
    return {"name": "identity" if name == "none" else name, **options}


def _taken(given: dict[str, Any], prefix: str) -> dict[str, Any]:
    found = {name: given.pop(f"{prefix}_{name}", None) for name in ("fraction", "bits", "block")}
    return {name: value for name, value in found.items() if value is not None}


def _compressor(given: dict[str, Any], put: Any) -> None:
    options = _taken(given, "compressor")
    if (name := given.pop("compressor", None)) is not None:
        put("compressor", _codec(name, options))


def _downlink(given: dict[str, Any], put: Any) -> None:
    codec, options = given.pop("downlink_compressor", None), _taken(given, "downlink")
    name = given.pop("downlink", None)
    put("downlink.name", "forwarded" if codec == "uploads" else name or "dense")
    if codec not in (None, "none", "uploads"):
        put("downlink.compressor", _codec(codec, options))


def _step_limit(given: dict[str, Any], put: Any) -> None:
    limit, local = given.pop("kl_limit", None), given.pop("limit_look_ahead", None)
    if limit == "none":
        put("step_limit.name", "unlimited")
    elif limit is not None:
        put("step_limit", {"name": "kl", "limit": limit, "local": bool(local)})
    elif local is not None:
        raise ValueError("method.limit_look_ahead without kl_limit cannot be converted; give step_limit.")


def _memory(given: dict[str, Any], put: Any) -> None:
    weight, name = given.pop("average_weight", None), given.pop("memory", None)
    if name is not None:
        put("memory.name", MEMORIES[name])
    if name == "average":
        put("memory.weight", 0.1 if weight is None else weight)
