"""Compressors: what the ledger says is what is sent, what arrives is what was meant, and how far that is from the vector."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lapg import estimators, methods
from lapg.experiments.build import build
from lapg.experiments.config import Config
from lapg.methods import Part
from lapg.problems import quadratic
from lapg.uplink import compressors
from lapg.uplink.compressors import exact, rounded, sparse
from support import player, quadratic_gradients

CODECS = {
    "lossless": compressors.lossless(),
    "top_k": compressors.top_k(0.3),
    "top_k, rounded": compressors.top_k(0.3, bits=5),
    "quantise": compressors.quantise(4, block=5),
    "quantise, 16 bits": compressors.quantise(16),
    "quantise, even": compressors.quantise(3, even=True, scale_bits=16),
    "qsgd": compressors.qsgd(1),
    "qsgd, blocks": compressors.qsgd(100, block=3, scale_bits=16),
    "sign": compressors.sign(block=4),
}
SIZES = (1, 2, 7, 33)
KEY = jax.random.key(0)


@pytest.fixture(scope="module", params=CODECS)
def codec(request):
    """One compressor, its compiled half once per size."""
    made = CODECS[request.param]

    @jax.jit
    def play(key, vector):
        message = made.compress(key, vector)
        return message, made.decompress(message), made.num_bits(message)

    return made, play, request.param


def vectors(dtype, largest):
    finite = st.floats(-largest, largest, width=dtype.itemsize * 8, allow_subnormal=True)
    return st.sampled_from(SIZES).flatmap(
        lambda size: hnp.arrays(dtype, size, elements=st.one_of(finite, st.just(0.0)))
    )


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data(), seed=st.integers(0, 2**31 - 1))
def test_the_length_on_the_wire_is_the_ledgers(codec, data, seed):
    """Oracle: num_bits == 8 · len(encode), and what is decoded is the message, for any finite vector: zeros, subnormals and 1e30 included."""
    made, play, _ = codec
    vector = data.draw(vectors(np.dtype(np.float32), float(np.float32(1e30))))
    message, decoded, bits = jax.tree.map(np.asarray, play(jax.random.key(seed), vector))
    raw = made.encode(message)
    assert int(bits) == 8 * len(raw)
    back = made.decode(raw, message)
    jax.tree.map(np.testing.assert_array_equal, back, message)
    assert decoded.dtype == vector.dtype
    assert np.isfinite(decoded).all()
    if not vector.any():
        np.testing.assert_array_equal(decoded, vector)


# ---------------------------------------------------------------- how far from the vector


def draw(made, vector, num=1):
    keys = jax.random.split(jax.random.key(5), num)
    run = jax.jit(jax.vmap(lambda key: made.decompress(made.compress(key, jnp.asarray(vector)))))
    return np.asarray(run(keys))


@pytest.fixture(scope="module")
def vector():
    return np.random.default_rng(3).normal(size=50) ** 3


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_lossless_keeps_every_bit(dtype):
    """Oracle: the vector's own bytes, −0 and the smallest subnormal included; by hand 1 byte for zeros, 3 + 5 bits for a count and a gap (Rice, 2^4) beside the value, d values at most."""
    made, width = compressors.lossless(), np.dtype(dtype).itemsize
    one = np.zeros(40, dtype)
    one[[3]] = -0.0
    smallest, dense = one.copy(), np.ones(40, dtype)
    smallest[3] = np.finfo(dtype).smallest_subnormal
    for vector, length in ((np.zeros(40, dtype), 1), (one, 1 + width), (smallest, 1 + width), (dense, 40 * width)):
        message = jax.jit(made.compress)(KEY, vector)
        raw = made.encode(np.asarray(message))
        assert int(made.num_bits(message)) == 8 * len(raw) == 8 * length
        assert np.asarray(made.decode(raw, vector)).tobytes() == vector.tobytes()


@pytest.mark.parametrize("fraction", [0.02, 0.1, 1.0])
def test_top_k_keeps_the_largest(vector, fraction):
    """Oracle: the k = fraction · 50 largest by sorting in NumPy; what is lost is their complement."""
    kept = np.argsort(-np.abs(vector))[: round(fraction * 50)]
    expected = np.zeros_like(vector)
    expected[kept] = vector[kept]
    np.testing.assert_array_equal(draw(compressors.top_k(fraction), vector)[0], expected)


def test_top_k_of_equals():
    """Oracle: k = 3 of (1, −2, 1, 2, .5) by hand, two of them equal; and of two numbers that are not 0, those."""
    made = compressors.top_k(0.6)
    np.testing.assert_array_equal(draw(made, [1.0, -2, 1, 2, 0.5])[0], [1, -2, 1, 2, 0])
    message = made.compress(KEY, jnp.asarray([0.0, 3, 0, -3, 0]))
    np.testing.assert_array_equal(message, [0, 3, 0, -3, 0])
    # γ(3) is 3 bits, the gaps 1 and 1 with r = 0 two each: one byte, and two float64
    assert int(made.num_bits(message)) == 8 + 2 * 64


def test_top_k_rounded_is_the_quantiser_of_the_largest(vector):
    """Oracle: `quantise` alone on the vector with all but the 5 largest at 0."""
    kept = draw(compressors.top_k(0.1), vector)[0]
    np.testing.assert_array_equal(
        draw(compressors.top_k(0.1, bits=3), vector)[0], draw(compressors.quantise(3), kept)[0]
    )


@pytest.mark.parametrize(
    ("made", "spacing"),
    [
        (compressors.quantise(4), 2 / 14),
        (compressors.quantise(2), 2 / 2),
        (compressors.quantise(4, even=True), 2 / 15),
        (compressors.quantise(1, even=True), 2 / 1),
    ],
)
def test_quantise_takes_the_nearest(vector, made, spacing):
    """Oracle: the nearest point of the grid R · (−1, −1 + spacing, ..., 1), searched in NumPy; with a 0 in the grid no error exceeds its entry."""
    radius = np.abs(vector).max()
    grid = radius * np.arange(-1, 1 + spacing / 2, spacing)
    nearest = grid[np.abs(vector[:, None] - grid).argmin(1)]
    decoded = draw(made, vector)[0]
    np.testing.assert_allclose(decoded, nearest, atol=1e-12 * radius)
    if (np.abs(grid) < 1e-9 * radius).any():
        assert (np.abs(vector - decoded) <= np.abs(vector)).all()


def test_blocks_have_their_own_scales(vector):
    """Oracle: the three blocks of 20, 20 and 10 entries one by one."""
    for make in (lambda **block: compressors.quantise(4, **block), compressors.sign):
        parts = [draw(make(), part)[0] for part in (vector[:20], vector[20:40], vector[40:])]
        np.testing.assert_allclose(draw(make(block=20), vector)[0], np.concatenate(parts), rtol=1e-14)


def test_short_scales_are_rounded_up(vector):
    """Oracle: bfloat16 has 8 significant bits: the radius is at most 2^−7 + 2^−8 too large and never too small; messages are shorter by 6 bytes."""
    long, short = compressors.quantise(4), compressors.quantise(4, scale_bits=16)
    messages = [made.compress(KEY, jnp.asarray(vector)) for made in (long, short)]
    ratio = float(messages[1].scales[0] / messages[0].scales[0])
    assert 1 < ratio < 1 + 2**-7 + 2**-8
    np.testing.assert_array_equal(messages[0].codes, messages[1].codes)
    assert len(long.encode(messages[0])) == len(short.encode(messages[1])) + 6


def test_sign_loses_what_theory_says(vector):
    """Oracle: ‖x − C(x)‖² = ‖x‖² − ‖x‖₁²/d."""
    lost = np.sum((vector - draw(compressors.sign(), vector)[0]) ** 2)
    np.testing.assert_allclose(lost, np.sum(vector**2) - np.abs(vector).sum() ** 2 / 50, rtol=1e-13)


@pytest.mark.parametrize("levels", [1, 4, 30])
def test_qsgd_is_unbiased(vector, levels):
    """Oracle: every entry's mean within 4.5 standard errors; the variance is Σ p(1−p) (‖x‖/s)² in closed form, and below min(d/s², √d/s) ‖x‖²."""
    runs, norm = 20_000, np.linalg.norm(vector)
    decoded = draw(compressors.qsgd(levels), vector, runs)
    chance = levels * np.abs(vector) / norm % 1
    variance = chance * (1 - chance) * (norm / levels) ** 2
    errors = np.sqrt(variance / runs)
    assert (np.abs(decoded.mean(0) - vector) <= 4.5 * errors + 1e-9).all()
    lost = np.sum((decoded - vector) ** 2, 1)
    assert abs(lost.mean() - variance.sum()) < 4.5 * lost.std() / runs**0.5
    assert lost.mean() < min(50 / levels**2, 50**0.5 / levels) * norm**2


def test_the_shortest_code_is_taken():
    """Oracle: lengths by hand for 100 entries of 4 bits (7 levels), all within ±7: dense 2 + 400 bits; few ones γ; few large ones fixed."""
    made = compressors.quantise(4)

    def length(codes):
        vector = jnp.zeros(100).at[0].set(7.0).at[1 : 1 + len(codes)].set(jnp.asarray(codes))
        return int(made.num_bits(made.compress(KEY, vector))) - 64

    # γ(2) = 3 bits; r = 5 from (99 · 11)//16 = 68, 6 → 64 entries; gap 0 in 1 + 6 bits; sign; γ(7) = 5 or fixed 3 bits; 2 for the kind
    assert length([]) == 16  # 2 + 3 + 7 + 1 + 3
    assert length([5.0] * 99) == 408  # 2 + 400 is less than 100 positions with r = 0, signs and magnitudes
    # count 21 + 1: γ = 9; r = (79 · 11)//(16 · 21) = 2 → 1; 21 gaps of 0 in 2 bits; 21 signs; γ(7) + 20 γ(1) = 25; 2
    assert length([1.0] * 20) == 104  # 99 bits


# ---------------------------------------------------------------- at work


def config(**method):
    return Config(
        problem=Part("quadratic", num_learners=3),
        estimator=Part("noisy"),
        optimiser=Part("sgd", step_size=0.05),
        **method,
        batch_size=2,
        rounds=20,
        seeds=1,
    )


def test_every_method_takes_a_compressor_by_name():
    """Oracle: the recipe's own compressor gives way; the fraction is a number of the compiled function; what is built compresses like the part itself."""
    built = build(config(method="periodic", compressor=Part("top_k", fraction=0.1)))
    assert set(built.hyper) == {"optimiser.step_size", "compressor.fraction"}
    found = built.recipe({"optimiser.step_size": 0.05, "compressor.fraction": 0.1}).compressor
    vector = jnp.arange(20.0)
    np.testing.assert_array_equal(found.compress(KEY, vector), compressors.top_k(0.1).compress(KEY, vector))
    plain = build(config(method="lapg", compressor=Part("quantise", bits=3, block=4)))
    method = plain.recipe({"optimiser.step_size": 0.05})
    assert method.compressor.compress(KEY, vector).scales.shape == (5,)
    build(config(method="pg", compressor=Part("qsgd", levels=1)))


@pytest.mark.parametrize(("codec", "memory"), [("top_k", "accumulator"), ("quantise", "running_average")])
def test_nothing_is_lost_on_the_way(codec, memory):
    """Oracle: under a coin's trigger, Σ applied + Σ residuals == Σ gradients, and aggregate == Σ uploaded, although messages are not the innovation."""
    problem = quadratic(num_learners=3, dimension=6, scales=(1.0, 0.5, 0.2), noise=0.5)
    setting = methods.Setting(estimators.noisy(problem.gradient), 2, 3)
    parts = {"trigger": Part(rate=0.4), "memory": Part(memory), "compressor": Part(codec)}
    random = methods.compose("random", setting, optimiser=Part("sgd", step_size=0.05), **parts)
    run = player(lambda hyper: random, problem, 20)
    states, logs = run({})
    held, params = states.learners.memory, states.controller.params
    if memory == "running_average":
        np.testing.assert_allclose(states.controller.aggregate, held.uploaded.sum(1), atol=1e-12)
        left = held.uploaded[1] - held.value[1]
    else:
        applied = (params[0] - params[1:]) / 0.05
        gradients = quadratic_gradients(problem, params[:-1], 2).sum(1)
        np.testing.assert_allclose(applied + held.value[1:].sum(1), np.cumsum(gradients, 0), atol=1e-10)
        left = held.value[1]
    assert np.abs(left).max() > 1e-3
    assert logs.sent[1:].any()
    assert not logs.sent[1:].all()


@pytest.mark.parametrize(
    ("build_it", "message"),
    [
        (lambda: compressors.top_k(0.0), r"top_k\(fraction=...\) must lie in \(0, 1\], got 0.0"),
        (lambda: compressors.quantise(1), r"quantise\(bits=...\) must lie in 2..16, got 1; compressors.sign"),
        (lambda: compressors.quantise(17, even=True), r"must lie in 1..16, got 17"),
        (lambda: compressors.qsgd(0), r"qsgd\(levels=...\) must lie in 1..32767, got 0"),
        (lambda: compressors.sign(block=0), r"sign\(block=...\) must be >= 1 or none, got 0"),
        (lambda: compressors.sign(scale_bits=8), r"sign\(scale_bits=...\) must be 16 or none, got 8"),
        (
            lambda: config(compressor="zip"),
            r"compressor must be one of identity, lossless, qsgd, quantise, sign, top_k, .*got 'zip'",
        ),
        (lambda: build(config(compressor=Part("qsgd", levels=0))), r"compressor.levels must lie in 1..32767, got 0"),
        (
            lambda: config(compressor=Part("sign", bits=3)),
            r"compressor.bits is not an option of compressor 'sign', which takes block, scale_bits",
        ),
        (lambda: build(config(method="pg", compressor="sign")), "needs a memory that keeps what it leaves out"),
        (
            lambda: config(method="pg", compressor=Part(bits=4)),
            r"compressor.bits is not an option of compressor 'identity'",
        ),
        (
            lambda: build(config(compressor=Part("top_k", fraction=2.0))),
            r"compressor.fraction must lie in \(0, 1\], got 2.0",
        ),
    ],
)
def test_wrong_options_are_refused(build_it, message, unchecked):
    """Oracle: the docstrings."""
    with pytest.raises(ValueError, match=message):
        build_it()


EVERY_KIND = {
    "none": compressors.identity(),
    "lossless": compressors.lossless(),
    "top_k": compressors.top_k(1.0),
    "top_k, 16 bits": compressors.top_k(1.0, bits=16),
    "quantise": compressors.quantise(16),
    "quantise, 4 bits": compressors.quantise(4, block=7),
    "qsgd": compressors.qsgd(32767),
    "sign": compressors.sign(),
}


@pytest.mark.parametrize("name", EVERY_KIND)
def test_messages_that_cannot_be_counted_are_refused(name):
    """Oracle: 32-bit numbers: what is accepted has a bound below 2^31 that no message passes; d = 1e9 is refused by name, and so is d = 0. No array is made."""

    def length(size):
        vector = jax.ShapeDtypeStruct((size,), jnp.float32)
        return jax.eval_shape(lambda v: EVERY_KIND[name].num_bits(EVERY_KIND[name].compress(KEY, v)), vector)

    assert length(22_000_000).dtype == jnp.int32
    many = 3 * 10**9 if name == "sign" else 10**9
    with pytest.raises(ValueError, match=rf"must have at most 2,146,435,072 bits, but with d = {many:,} it may take"):
        length(many)
    with pytest.raises(ValueError, match="must have at least one entry, got a vector of length 0"):
        length(0)


@pytest.mark.parametrize("name", EVERY_KIND)
def test_no_message_is_longer_than_its_bound(monkeypatch, name):
    """Oracle: the encoded length, of vectors with few and with many entries, small and large ones beside each other."""
    bounds = []
    for module in (exact, rounded, sparse):
        monkeypatch.setattr(module, "check_length", lambda what, size, most: bounds.append(most))
    draw = np.random.default_rng(0)
    for size in (1, 3, 50):
        for share in (0.0, 0.02, 0.1, 0.3, 0.5, 0.9, 1.0):
            vector = np.where(draw.random(size) < share, 10 ** draw.uniform(-3, 0, size), 0).astype(np.float32)
            vector[-1] = 1
            message = EVERY_KIND[name].compress(KEY, jnp.asarray(vector))
            bits = int(EVERY_KIND[name].num_bits(message))
            assert bits == 8 * len(EVERY_KIND[name].encode(message))
            assert bits <= max(bounds[-2:])


def test_settings_that_cannot_be_counted_are_refused():
    """Oracle: by hand, in float32 and float64: 64 · 39.7 million parameters, or three times as many numbers in a state, are more than 2^31."""
    for method, what in (
        ({}, "θ on a dense downlink"),
        ({"downlink": Part("replicated")}, "the state that a replicated downlink begins with"),
    ):
        problem = Part("cart_pole", num_learners=2)
        config = Config(problem=problem, policy=Part(hidden=(6300, 6300)), method="pg", **method)
        with pytest.raises(ValueError, match=f"{what} must have at most 2,146,435,072 bits, but with d = 39,7"):
            build(config)
