"""Runs a Flower federation on this machine for one run: a SuperLink and SuperNodes on the loopback interface, with TLS and node keys."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import jax

from lapg.runtimes.flower import guardian

PROGRAMS = ("flwr", "flower-superlink", "flower-supernode")


@dataclass(frozen=True)
class SuperLink:
    """How the program ``flwr`` reaches a SuperLink.

    Attributes:
      name: of the connection, in Flower's own configuration.
      processes: that must stay alive.
    """

    name: str
    environment: Mapping[str, str]
    logs: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def flwr(self, *arguments: str, seconds: float = 300.0) -> Any:
        """Runs the program, and returns its JSON output.

        Raises:
          ValueError: it fails, or takes too long, or one of ``processes`` has ended.
        """
        if any(process.poll() is not None for process in self.processes):
            raise ValueError(
                f"SuperLink and SuperNodes must run to the end, but one has not; see the logs in {self.logs}."
            )
        command = [program("flwr"), *arguments, "--format", "json"]
        try:
            done = subprocess.run(
                command,
                env=dict(self.environment),
                capture_output=True,
                text=True,
                timeout=seconds,
                check=False,
                start_new_session=True,  # Ctrl-C is for the caller
            )
        except subprocess.TimeoutExpired as error:
            raise ValueError(
                f"flwr {arguments[0]} must end within {seconds} s; see the logs in {self.logs}."
            ) from error
        try:
            return json.loads(done.stdout)
        except json.JSONDecodeError as error:
            raise ValueError(f"flwr {arguments[0]} failed: {(done.stdout + done.stderr)[-500:]}") from error


@contextlib.contextmanager
def loopback(num_learners: int, logs: Path, timeout: float) -> Iterator[SuperLink]:
    """Starts a SuperLink, and a SuperNode for each learner; stops them afterwards and removes the keys, also if this process is killed.

    Args:
      logs: directory for the output of the processes.
      timeout: seconds in which the SuperLink must listen.
    Raises:
      ValueError: Flower is not installed, or does not start.
    """
    programs = {name: program(name) for name in PROGRAMS}
    with tempfile.TemporaryDirectory(prefix="lapg-flower-") as directory, contextlib.ExitStack() as stack:
        home = Path(directory)
        guard = stack.enter_context(guarded(home))
        write_certificates(home)
        link, *ports = free_ports(1 + num_learners)
        address, authority = f"127.0.0.1:{link}", str(home / "ca.crt")
        entries = {"address": address, "root-certificates": authority}
        lines = [f"{name} = {json.dumps(value)}" for name, value in entries.items()]
        text = "\n".join(["[superlink]", 'default = "loopback"', "[superlink.loopback]", *lines, ""])
        (home / "config.toml").write_text(text, encoding="utf-8")
        superlink = SuperLink("loopback", _environment(home), logs)

        def start(name: str, *arguments: str, log: str) -> subprocess.Popen[bytes]:
            command = [programs[name], *arguments]
            process = stack.enter_context(running(command, superlink.environment, home, logs / f"{log}.log"))
            guard(process.pid)
            superlink.processes.append(process)
            return process

        secured = ["--ssl-ca-certfile", authority, "--ssl-certfile", "server.pem", "--ssl-keyfile", "server.key"]
        switches = ["--enable-supernode-auth", "--disable-runtime-dependency-installation"]
        server = start("flower-superlink", *secured, *switches, "--port", str(link), log="superlink")
        wait_for_port(link, server, time.monotonic() + timeout)
        for m, port in enumerate(ports):
            key = home / f"node{m}"
            write_node_key(key)
            superlink.flwr("supernode", "register", str(key.with_suffix(".pub")))
            own = ["--auth-supernode-private-key", str(key), "--node-config", f"learner={m}", "--port", str(port)]
            where = ["--superlink", address, "--root-certificates", authority]
            start("flower-supernode", *where, *own, log=f"supernode{m}")
        yield superlink


def _environment(home: Path) -> dict[str, str]:
    """Builds the environment of all processes: they import from the same places as this one, and compute on the CPU by default."""
    local = "127.0.0.1,localhost"
    defaults = {"JAX_COMPILATION_CACHE_DIR": str(home / "cache"), "JAX_PLATFORMS": "cpu"}
    needed = {
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.2",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_ENABLE_X64": str(int(jax.config.read("jax_enable_x64"))),
        "NO_PROXY": local,
        "no_proxy": local,
        "PATH": _search_path(),
        "PYTHONPATH": os.pathsep.join(str(Path(entry).resolve()) for entry in sys.path),
    }
    return defaults | os.environ | needed


@contextlib.contextmanager
def guarded(home: Path) -> Iterator[Callable[[int], None]]:
    """Starts the guardian, and gives the function that registers processes with it by their numbers; it also removes ``home``."""
    command = [sys.executable, "-P", str(Path(guardian.__file__)), str(home)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdin is not None

        def guard(number: int) -> None:
            print(number, file=process.stdin, flush=True)

        yield guard


@contextlib.contextmanager
def running(
    command: list[str], environment: Mapping[str, str], cwd: Path, log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Starts a process; ends it and all its children afterwards, by force if necessary."""
    import psutil

    with log.open("wb") as stream:
        process = subprocess.Popen(
            command, env=dict(environment), cwd=cwd, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            yield process
        finally:
            with contextlib.suppress(psutil.NoSuchProcess):
                guardian.end([psutil.Process(process.pid)])
            process.wait(timeout=10)


def free_ports(num: int) -> list[int]:
    """Finds ports of the loopback interface that are free now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(num)]
        return [entry.getsockname()[1] for entry in sockets]


def wait_for_port(port: int, process: subprocess.Popen[bytes], ends: float) -> None:
    """Waits until a port is listened on.

    Raises:
      ValueError: the process ends before, or the time ``ends`` is reached.
    """
    while True:
        if process.poll() is not None or time.monotonic() > ends:
            raise ValueError("flower-superlink must listen within the timeout, but it does not; see superlink.log.")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.2)


def write_certificates(where: Path) -> None:
    """Writes ``ca.crt``, and ``server.pem`` with ``server.key`` for the loopback interface, valid for a day; the authority's key is not kept."""
    from cryptography import x509  # pyright: ignore[reportMissingImports]
    from cryptography.hazmat.primitives import hashes, serialization  # pyright: ignore[reportMissingImports]
    from cryptography.hazmat.primitives.asymmetric import ec  # pyright: ignore[reportMissingImports]

    def name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])

    now, authority, key = (
        datetime.now(UTC),
        ec.generate_private_key(ec.SECP384R1()),
        ec.generate_private_key(ec.SECP384R1()),
    )

    def certificate(subject: str, public: Any, *, ca: bool) -> x509.Certificate:
        builder = x509.CertificateBuilder().subject_name(name(subject)).issuer_name(name("lapg demonstration"))
        builder = builder.public_key(public).serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now - timedelta(minutes=5)).not_valid_after(now + timedelta(days=1))
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        if not ca:
            names = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(authority, hashes.SHA384())

    pem = serialization.Encoding.PEM
    (where / "ca.crt").write_bytes(certificate("lapg demonstration", authority.public_key(), ca=True).public_bytes(pem))
    (where / "server.pem").write_bytes(certificate("localhost", key.public_key(), ca=False).public_bytes(pem))
    plain = serialization.NoEncryption()
    _secret(where / "server.key", key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))


def write_node_key(path: Path) -> None:
    """Writes a P-384 key in OpenSSH's format, and its public key beside it."""
    from cryptography.hazmat.primitives import serialization  # pyright: ignore[reportMissingImports]
    from cryptography.hazmat.primitives.asymmetric import ec  # pyright: ignore[reportMissingImports]

    key = ec.generate_private_key(ec.SECP384R1())
    openssh, plain = serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    _secret(path, key.private_bytes(serialization.Encoding.PEM, openssh, plain))
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    path.with_suffix(".pub").write_bytes(public)


def _secret(path: Path, content: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(content)


def program(name: str) -> str:
    """Finds one of Flower's programs.

    Raises:
      ValueError: it is not installed.
    """
    found = shutil.which(name, path=_search_path())
    if found is None:
        raise ValueError(f"runtime 'flower' needs the program {name}; pip install 'lapg[flower]'.")
    return found


def _search_path() -> str:
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
