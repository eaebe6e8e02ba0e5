"""`make demo`: a server with a real classifier, an administrator and a token, and how to call it.

Run again, it reuses what is there. The demo's password and token are kept beside its data, for this demo only.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import random
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "demo" / "models" / "efficientnet-lite0"
MODEL = "classifier"
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
    options = parser.parse_args()
    if is_taken(options.port):  # before anything is made; and whoever answers there is not our server
        print(f"Error: port {options.port} is taken; choose another one with PORT=…", file=sys.stderr)
        return CANNOT_LISTEN
    data_dir = options.data_dir.resolve()
    credentials = prepare(data_dir, options.budget_s)
    server = subprocess.Popen(run_py(data_dir, "--port", str(options.port)), cwd=ROOT)
    signal.signal(signal.SIGTERM, lambda *_: server.terminate())
    try:
        wait_ready(server, options.port)
        tell(options.port, credentials)
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
    """Migrate, make the administrator and the token, add, deploy and tune the model; whatever is there is kept."""
    kept = data_dir / "demo.json"
    if kept.is_file():
        found: dict[str, str] = json.loads(kept.read_text())
        if command(data_dir, "model", "list").find(MODEL) >= 0:
            return found
    password = secrets.token_urlsafe(12)
    asyncio.run(make_admin(data_dir, password))
    package = data_dir / "demo-classifier.zip"
    with zipfile.ZipFile(package, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(PACKAGE.iterdir()):
            archive.write(file, file.name)
    print(f"Adding the model {MODEL!r}: it is checked in a sandbox, then deployed.", flush=True)
    subprocess.run(run_py(data_dir, "model", "add", MODEL, str(package), "--deploy"), cwd=ROOT, check=True)
    package.unlink()
    if budget_s:
        optimise(data_dir, budget_s)
    token = command(data_dir, "token", "create", "--name", "demo").split()[-1]
    credentials = {"user": "admin", "password": password, "token": token}
    kept.touch(mode=0o600)
    kept.write_text(json.dumps(credentials))
    return credentials


def optimise(data_dir: Path, budget_s: float) -> None:
    """Give the model samples, cut from the photos, and let `engine: auto` follow what is fastest here."""
    samples = data_dir / "demo-samples.zip"
    with zipfile.ZipFile(samples, "w") as archive:
        for number, jpeg in enumerate(crops(SAMPLES)):
            archive.writestr(f"{number:03}.jpg", jpeg)
    command(data_dir, "model", "samples", "add", MODEL, str(samples))
    samples.unlink()
    print(f"Looking for the engine that is fastest on this machine, for {budget_s:.0f} s at most.", flush=True)
    search = run_py(data_dir, "model", "optimise", MODEL, "--budget-s", str(budget_s))
    subprocess.run(search, cwd=ROOT, check=False)  # the model is served all the same


def crops(count: int) -> Iterator[bytes]:
    """Parts of the photos, each 0.6 to 1 of the shorter side, some mirrored; the same every time."""
    chance = random.Random(0)
    photos = [Image.open(path).convert("RGB") for path in sorted((ROOT / "demo" / "images").glob("*.jpg"))]
    for number in range(count):
        photo = photos[number % len(photos)]
        side = int(min(photo.size) * chance.uniform(0.6, 1))
        left, top = chance.randint(0, photo.width - side), chance.randint(0, photo.height - side)
        crop = photo.crop((left, top, left + side, top + side)).resize((320, 320))
        if chance.random() < 0.5:
            crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        buffer = io.BytesIO()
        crop.save(buffer, "JPEG", quality=90)
        yield buffer.getvalue()


async def make_admin(data_dir: Path, password: str) -> None:
    from app.cli.serve import prepare as prepare_database
    from core.settings import load_settings

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


def tell(port: int, credentials: dict[str, str]) -> None:
    base = f"http://127.0.0.1:{port}"
    photos = ROOT / "demo" / "images"
    print(
        f"""
Pulvinar serves on {base}

  Admin API    user {credentials["user"]}   password {credentials["password"]}
               pages {base}/docs/internal and {base}/docs/external
  Token        {credentials["token"]}

  Try it:
    curl -s -H 'X-Access-Token: {credentials["token"]}' \\
         -F image=@{photos / "chelsea.jpg"} {base}/api/v1/inference/{MODEL}

  The other photos: {", ".join(sorted(p.name for p in photos.glob("*.jpg")))}. Ctrl-C stops the server.
""",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
