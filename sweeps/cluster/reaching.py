"""Whether a cluster can be reached, and as what: asked before Ray is, which is mute or hangs.

Without a token Ray says after 20 s that it "failed to connect"; from a machine that is no node it
hangs for 98 s and then ends the process. Only for the bridge process: this module imports Ray, once
it is known whether with a token: Ray reads that when it is imported, and never again.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ANSWER_SECONDS = 5.0
JOIN_SECONDS = 8.0
"""A node that was just started is one by then."""
AUTO = "auto"
NODES_METHOD = "/ray.rpc.NodeInfoGcsService/GetAllNodeAddressAndLiveness"
INSECURE = "--ray-insecure"


class UnreachableError(Exception):
    """The cluster cannot be used; one line that says why, and the way out."""


@dataclass(frozen=True)
class Reached:
    """A cluster that answers.

    Attributes:
        address: HOST:PORT of its head.
        has_token: whether it wants a token, which is known here.
    """

    address: str
    has_token: bool


def reach(address: str, *, insecure: bool) -> Reached:
    """Asks the head of the cluster whether it can be used from here.

    Args:
        address: HOST:PORT, or `auto` for the cluster that was last joined on this machine.
        insecure: whether a cluster without authentication is taken beyond this machine.

    Raises:
        UnreachableError: It cannot.
    """
    import grpc

    address = _joined_here() if address == AUTO else address
    host = address.rpartition(":")[0]
    _open_socket(address)
    answer, token = _asked(address, ""), ""
    has_token = answer is grpc.StatusCode.UNAUTHENTICATED
    if has_token:
        token = _known_token(address)
        answer = _asked(address, token)
        if answer is grpc.StatusCode.UNAUTHENTICATED:
            raise UnreachableError(
                f"The Ray cluster at {address} refuses the token of this machine "
                f"({_token_place()}). Give it the cluster's own: RAY_AUTH_TOKEN_PATH=FILE."
            )
    if isinstance(answer, grpc.StatusCode):
        tls = "" if _uses_tls() else " If it uses TLS, set RAY_USE_TLS=1 and its certificates."
        raise UnreachableError(
            f"What listens at {address} does not answer as the head of a Ray cluster "
            f"({answer.name}).{tls} The port is that of `ray start --head`, 6379 by default."
        )
    needs_token = not has_token and not insecure
    if needs_token and not _is_loopback(host):
        raise _without_token(address)
    os.environ["RAY_AUTH_MODE"] = "token" if has_token else "disabled"
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    deadline = time.monotonic() + JOIN_SECONDS
    while not (is_node := bool(_own_addresses(_living(answer)))) and time.monotonic() < deadline:
        time.sleep(0.5)
        answer = _asked(address, token)
    if not is_node:
        raise UnreachableError(
            f"This machine is no node of the Ray cluster at {address}. Join it, without taking "
            f"trials: ray start --address={address} --num-cpus=0"
        )
    living = _living(answer)
    if needs_token and living != _own_addresses(living):  # Other machines reach it, too.
        raise _without_token(address)
    return Reached(address, has_token)


def _without_token(address: str) -> UnreachableError:
    return UnreachableError(
        f"The Ray cluster at {address} has no authentication: whoever reaches it can run programs "
        "on its nodes. Start it with a token (RAY_AUTH_MODE=token ray start --head), or accept "
        f"that in a network of your own with {INSECURE}."
    )


def _joined_here() -> str:
    """The address of the cluster that `ray start` was last called for on this machine.

    From the file that Ray leaves; it has no public function for it.
    """
    folder = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()) / "ray"
    try:
        return (folder / "ray_current_cluster").read_text(encoding="utf-8").strip()
    except OSError:
        raise UnreachableError(
            "This machine is a node of no Ray cluster. `ray start --head` starts one; "
            "`ray start --address=HOST:PORT` joins one."
        ) from None


def _open_socket(address: str) -> None:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), ANSWER_SECONDS).close()
    except (OSError, ValueError) as error:
        raise UnreachableError(
            f"No Ray cluster answers at {address} ({error}). Start one with `ray start --head` "
            "there, and join each further machine with `ray start --address=HOST:PORT`."
        ) from error


def _asked(address: str, token: str) -> Any:
    """The answer to which nodes there are, in bytes; a gRPC status where it is not told."""
    import grpc

    with _channel(address) as channel:
        ask = channel.unary_unary(NODES_METHOD)  # Bytes in, bytes out: without Ray's classes.
        metadata = [("authorization", f"Bearer {token}")] if token else []
        try:
            return ask(b"", timeout=ANSWER_SECONDS, metadata=metadata)
        except grpc.RpcError as error:
            return error.code()


def _living(answer: Any) -> set[str]:
    """The addresses of the living nodes; imports Ray."""
    if not isinstance(answer, bytes):
        return set()
    from ray.core.generated import gcs_service_pb2

    reply = gcs_service_pb2.GetAllNodeAddressAndLivenessReply.FromString(answer)
    return {node.node_manager_address for node in reply.node_info_list if node.state == 0}


def _channel(address: str) -> Any:
    import grpc

    options = [("grpc.enable_http_proxy", 0)]
    if not _uses_tls():
        return grpc.insecure_channel(address, options)
    names = ("RAY_TLS_CA_CERT", "RAY_TLS_SERVER_KEY", "RAY_TLS_SERVER_CERT")
    try:
        ca, key, certificate = (Path(os.environ[name]).read_bytes() for name in names)
    except (KeyError, OSError) as error:
        raise UnreachableError(
            f"RAY_USE_TLS is set, so {', '.join(names)} must name files. Received: {error}."
        ) from error
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(ca, key, certificate), options)


def _uses_tls() -> bool:
    return os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true")


def _known_token(address: str) -> str:
    """The token of this machine, looked for where Ray does."""
    found = os.environ.get("RAY_AUTH_TOKEN", "").strip()
    if not found:
        with contextlib.suppress(OSError):
            found = _token_file().read_text(encoding="utf-8").strip()
    if not found:
        raise UnreachableError(
            f"The Ray cluster at {address} wants a token, and there is none in RAY_AUTH_TOKEN or "
            f"{_token_file()}. Copy the cluster's there (~/.ray/auth_token on its head), or set "
            "RAY_AUTH_TOKEN_PATH=FILE."
        )
    return found


def _token_file() -> Path:
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    return Path(named) if named else Path.home() / ".ray" / "auth_token"


def _token_place() -> str:
    return "RAY_AUTH_TOKEN" if os.environ.get("RAY_AUTH_TOKEN") else str(_token_file())


def _is_loopback(host: str) -> bool:
    try:
        found = {entry[4][0] for entry in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    return all(ipaddress.ip_address(text).is_loopback for text in found)


def _own_addresses(candidates: set[str]) -> set[str]:
    """Those of some addresses that are this machine's: it can listen there."""
    found: set[str] = set()
    for text in candidates:
        family = socket.AF_INET6 if ":" in text else socket.AF_INET
        with contextlib.suppress(OSError), socket.socket(family) as own:
            own.bind((text, 0))
            found.add(text)
    return found
