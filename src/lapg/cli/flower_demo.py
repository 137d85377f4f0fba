"""The command that shows a Flower federation on one machine: certificates and keys, SuperLink, SuperNodes, a short run, its ledger."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import jax
from rich.table import Table

from lapg.cli.terminal import console
from lapg.experiments.run import load
from lapg.ledger import downlink_bits, uplink_bits

EXPERIMENT = """\
rounds = {rounds}
batch_size = 4

[problem]
name = "cooperative_navigation"
num_agents = {learners}
hidden = [8]

[method]
name = "lapg"
noise_weight = 0.0
xi = [0.5]
"""
APP = '"""The app: everything is in lapg, which is installed on every node."""\n\nfrom lapg.experiments import federation\n\nclient = federation.client_app()\nserver = federation.server_app()\n'
PROJECT = """\
[project]
name = "lapg-federation"
version = "1.0.0"
description = "lapg on Flower"
license = "MIT"
dependencies = ["flwr>=1.41"]

[tool.flwr.app]
publisher = "lapg"

[tool.flwr.app.components]
serverapp = "federation:server"
clientapp = "federation:client"

[tool.flwr.app.config]
deadline = 300.0
timeout = 300.0
quorum = 1
out = {out}
experiment = '''
{experiment}'''
"""
DONE = {"finished:completed": True, "finished:failed": False, "finished:stopped": False}
"""How Flower calls the ends of a run, and whether they are good ones."""


def flower_demo(
    learners: int = 2, rounds: int = 10, out: Path = Path("runs/flower-demo"), timeout: float = 900.0
) -> None:
    """Train in a Flower federation on this machine: one SuperLink and a SuperNode for each learner, with TLS and node keys, and show the ledger.

    Everything that is started is stopped again. OUT keeps the run, the app, the logs and, for as long as the command runs, the keys.

    Args:
      learners: M.
      rounds: K.
      out: new directory.
      timeout: seconds after which the demonstration is given up.
    """
    if learners < 1 or rounds < 1:
        raise ValueError(f"learners and rounds must be >= 1, got {learners} and {rounds}.")
    programs = {name: _program(name) for name in ("flwr", "flower-superlink", "flower-supernode")}
    if out.exists():
        raise ValueError(f"out={out} must be a new directory, but it exists; choose another name.")
    app, run = (out / "app").resolve(), (out / "run").resolve()
    app.mkdir(parents=True)
    (app / "federation.py").write_text(APP, encoding="utf-8")
    settings = EXPERIMENT.format(rounds=rounds, learners=learners)
    (app / "pyproject.toml").write_text(PROJECT.format(out=json.dumps(str(run)), experiment=settings), encoding="utf-8")
    ends = time.monotonic() + timeout
    with tempfile.TemporaryDirectory(prefix="lapg-flower-") as home:
        _federate(programs, Path(home), app, out.resolve(), learners, ends)
    _show(run)


def _federate(programs: Mapping[str, str], home: Path, app: Path, logs: Path, learners: int, ends: float) -> None:
    """Plays the app; all that it starts is stopped when it returns or raises."""
    write_certificates(home)
    for m in range(learners):
        write_node_key(home / f"node{m}")
    link, *ports = free_ports(1 + learners)
    connection = {"address": f"127.0.0.1:{link}", "root-certificates": str(home / "ca.crt")}
    lines = [
        "[superlink]",
        'default = "demo"',
        "[superlink.demo]",
        *(f"{k} = {json.dumps(v)}" for k, v in connection.items()),
    ]
    (home / "config.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    environment = os.environ | {
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.2",
        "JAX_COMPILATION_CACHE_DIR": str(home / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_ENABLE_X64": str(int(jax.config.read("jax_enable_x64"))),
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
    }

    def flwr(*arguments: str) -> Any:
        left = max(1.0, ends - time.monotonic())
        command = [programs["flwr"], *arguments, "--format", "json"]
        try:
            done = subprocess.run(
                command, env=environment, cwd=home, capture_output=True, text=True, timeout=left, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise ValueError(
                f"flwr {arguments[0]} must end within the timeout; see {logs}, or give --timeout."
            ) from error
        try:
            return json.loads(done.stdout)
        except json.JSONDecodeError as error:
            raise ValueError(f"flwr {arguments[0]} failed: {(done.stdout + done.stderr)[-500:]}") from error

    secured = ["--ssl-ca-certfile", "ca.crt", "--ssl-certfile", "server.pem", "--ssl-keyfile", "server.key"]
    with contextlib.ExitStack() as stack:

        def start(name: str, *arguments: str, log: str) -> subprocess.Popen[bytes]:
            return stack.enter_context(running([programs[name], *arguments], environment, home, logs / f"{log}.log"))

        server = start(
            "flower-superlink",
            *secured,
            "--enable-supernode-auth",
            "--disable-runtime-dependency-installation",
            "--port",
            str(link),
            log="superlink",
        )
        wait_for_port(link, server, ends)
        for m in range(learners):
            flwr("supernode", "register", f"node{m}.pub")
        nodes = []
        for m, port in enumerate(ports):
            own = ["--auth-supernode-private-key", f"node{m}", "--node-config", f"learner={m}", "--port", str(port)]
            where = ["--superlink", f"127.0.0.1:{link}", "--root-certificates", "ca.crt"]
            nodes.append(start("flower-supernode", *where, *own, log=f"supernode{m}"))
        run_id = str(flwr("run", str(app), "demo")["run-id"])
        while True:
            (entry,) = flwr("list", "--run-id", run_id)["runs"]
            if entry["status"] in DONE:
                break
            if any(process.poll() is not None for process in (server, *nodes)):
                raise ValueError(
                    f"SuperLink and SuperNodes must run to the end, but one has not; see the logs in {logs}."
                )
            if time.monotonic() > ends:
                raise ValueError(
                    f"the run must end within the timeout, got status {entry['status']}; see {logs}, or give --timeout."
                )
            time.sleep(5)  # each look is a process of its own
        (logs / "flwr-list.json").write_text(json.dumps(entry, indent=1), encoding="utf-8")
        if not DONE[entry["status"]]:
            raise ValueError(f"the run must be completed, got {entry['status']}; see {logs}/superlink.log.")


@contextlib.contextmanager
def running(
    command: list[str], environment: Mapping[str, str], cwd: Path, log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """A process; it and whatever it has started are ended afterwards, if need be by force."""
    import psutil

    with log.open("wb") as stream:
        process = subprocess.Popen(
            command, env=dict(environment), cwd=cwd, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            yield process
        finally:
            with contextlib.suppress(psutil.NoSuchProcess):
                root = psutil.Process(process.pid)
                family = [*root.children(recursive=True), root]
                for member in family:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        member.terminate()
                for member in psutil.wait_procs(family, timeout=10)[1]:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        member.kill()
            process.wait(timeout=10)


def free_ports(num: int) -> list[int]:
    """Ports of the loopback interface that nobody listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(num)]
        return [entry.getsockname()[1] for entry in sockets]


def wait_for_port(port: int, process: subprocess.Popen[bytes], ends: float) -> None:
    """Returns once somebody listens."""
    while True:
        if process.poll() is not None or time.monotonic() > ends:
            raise ValueError("flower-superlink must listen within the timeout, but it does not; see superlink.log.")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.2)


def write_certificates(where: Path) -> None:
    """``ca.crt``, and ``server.pem`` with ``server.key`` for the loopback interface, good for a day; the authority's own key is kept nowhere."""
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
    """A P-384 key in OpenSSH's format, and its public half beside it."""
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


def _program(name: str) -> str:
    found = shutil.which(name, path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    if found is None:
        raise ValueError(f"flower-demo needs the program {name}; pip install 'lapg[flower]'.")
    return found


def _show(run: Path) -> None:
    record = load(run).record.isel(seed=0)
    present, sent = record["participated"].values, record["sent"].values
    down = downlink_bits(record["downlink_bits"].values, present)
    up = uplink_bits(record["uplink_bits"].values, sent)
    table = Table("round", "uploads", "by", "bytes up so far", "bytes down so far", title=str(run))
    for k in range(len(sent)):
        who = " ".join(str(m) for m in sent[k].nonzero()[0]) or "nobody"
        table.add_row(str(k), str(int(sent[k].sum())), who, f"{up[k] // 8:,}", f"{down[k] // 8:,}")
    console.print(table)
