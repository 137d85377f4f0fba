"""The downlink: what learners hear of the controller, θ^k itself or what it takes to follow the controller's steps."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from lapg.ledger import HEADER_BITS
from lapg.types import Arrival, Broadcast, Compressor, ControllerState, Downlink, Relay, check_length, select, tree_bits


def dense() -> Downlink:
    """θ^k and the trigger's signal, every round, to every learner that takes part."""
    return Downlink()


class Following(eqx.Module):
    """What compression has left over of the totals so far, and how many bits each learner has yet to hear."""

    error: Float[Array, " d"]
    owed: Int[Array, " M"]


def replicated(compressor: Compressor) -> Downlink:
    """Learners' hosts run a replica of the controller, and hear only what it stepped with; of a round in which nobody uploaded, nothing.

    Before step k the total of what arrived, and what compression has left over so far, is compressed; controller and replicas step with what this
    decodes to, and the remainder waits for the next round in which somebody uploads: Σ totals == Σ decoded + error after every round. The parameters
    are therefore the same everywhere, to the bit where the same program computes them; they are those of `dense` where the compressor is exact.

    A learner that takes part in round k is brought up to date before it samples: it hears a header, and in it one frame for each earlier round that
    it missed and in which somebody uploaded, or the controller's whole state if that is shorter. The state is also what it hears first of all.

    Args:
      compressor: of totals; one that contracts, or errors grow. `lapg.uplink.compressors.identity` loses nothing.
    Source: error feedback at the sender as in Tang et al., arXiv 1905.05957 (DoubleSqueeze); here of increments, so that parameters are never sent.
    """

    def init(controller: ControllerState, num_learners: int) -> Following:
        what = "the state that a replicated downlink begins with"
        check_length(what, controller.params.size, tree_bits(controller), "or downlink 'dense'")
        return resync(
            Following(jnp.zeros_like(controller.params), jnp.zeros(num_learners, jnp.int32)),
            jnp.ones(num_learners, bool),
        )

    def resync(state: Following, lost: Bool[Array, " M"]) -> Following:
        return Following(state.error, jnp.where(lost, jnp.iinfo(jnp.int32).max, state.owed))

    def deliver(
        state: Following, controller: ControllerState, broadcast: Broadcast, participated: Bool[Array, " M"]
    ) -> tuple[Following, Int[Array, " M"]]:
        owed = jnp.minimum(state.owed, tree_bits(controller) + HEADER_BITS)
        return Following(state.error, jnp.where(participated, 0, owed)), jnp.where(participated, owed, 0)

    def compress(key: Key[Array, ""], state: Following, arrival: Arrival) -> tuple[Following, Relay]:
        spoken = jnp.any(arrival.sent)
        value = arrival.total + state.error
        message = compressor.compress(key, value)
        extras = arrival.report, arrival.length
        num_learners = arrival.sent.shape[0]
        # whole bytes for the bits that say who sent, and what those learners sent along
        beside = 8 * -(-num_learners // 8) + jnp.sum(arrival.sent) * (tree_bits(extras) // num_learners)
        bits = (compressor.num_bits(message) + beside).astype(jnp.int32)
        relay = Relay(message, arrival.sent, *extras, bits)
        relay = select(spoken, relay, jax.tree.map(jnp.zeros_like, relay))
        error = jnp.where(spoken, value - compressor.decompress(message), state.error)
        due = jnp.where(spoken, bits + HEADER_BITS, 0)  # longer than the state already is long enough
        return Following(error, state.owed + jnp.minimum(due, jnp.iinfo(jnp.int32).max - state.owed)), relay

    def expand(relay: Relay) -> Arrival:
        total = jnp.where(jnp.any(relay.sent), compressor.decompress(relay.message), 0)
        return Arrival(total, relay.sent, relay.report, relay.length)

    return Downlink(init, deliver, compress, expand, resync, compressor)
