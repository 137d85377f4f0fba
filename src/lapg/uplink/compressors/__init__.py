"""What a message looks like, as arrays inside the compiled code and as bytes on the wire."""

from lapg.uplink.compressors.exact import contractive, identity, partly, weighted
from lapg.uplink.compressors.rounded import qsgd, quantise, sign
from lapg.uplink.compressors.sparse import lossless, top_k

__all__ = ["contractive", "identity", "lossless", "partly", "qsgd", "quantise", "sign", "top_k", "weighted"]
