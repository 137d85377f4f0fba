"""The security that is required of a cluster."""

import ipaddress
import os


def check_security(address: str | None, insecure: bool) -> None:
    """Requires a token or TLS of a cluster that other machines can reach, since Ray runs whatever code it is sent.

    Raises:
      ValueError: it has neither.
    """
    host = (address or "local").removeprefix("ray://")
    host = host.rsplit(":", 1)[0].strip("[]") if ":" in host else host
    secured = os.environ.get("RAY_AUTH_MODE", "").lower() == "token" or os.environ.get("RAY_USE_TLS") == "1"
    if not (host in ("local", "localhost") or _is_loopback(host) or secured or insecure):
        raise ValueError(
            f"address={address} must be this machine, or be secured; set RAY_AUTH_MODE=token (and the cluster's token) or RAY_USE_TLS=1 on all "
            "machines, or say insecure if the network is yours alone."
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
