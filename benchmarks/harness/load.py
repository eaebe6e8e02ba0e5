"""Closed-loop load from `wrk`: every connection asks again as soon as it is answered."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness.places import scratch
from benchmarks.harness.server import pinned
from benchmarks.harness.workload import Call

_DONE = """
done = function(summary, latency, _)
  io.write(string.format(
    'RESULT {"requests":%d,"duration_us":%d,"bytes":%d,"connect":%d,"read":%d,"write":%d,"timeout":%d,' ..
    '"status":%d,"p50_us":%d,"p90_us":%d,"p99_us":%d,"max_us":%d}\\n',
    summary.requests, summary.duration, summary.bytes, summary.errors.connect, summary.errors.read,
    summary.errors.write, summary.errors.timeout, summary.errors.status, latency:percentile(50),
    latency:percentile(90), latency:percentile(99), latency.max))
end
"""


class LoadFailed(Exception):
    """`wrk` itself went wrong."""


@dataclass(frozen=True)
class Measured:
    """One run. Latencies are over all answers, whatever their status; requests open at its end count nowhere."""

    requests_per_s: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float
    requests: int
    seconds: float
    non_2xx: int
    """Answers of status 400 and above, as wrk counts them."""
    errors: int
    """Connections that could not be made or broke, and answers that took more than 30 s."""

    @property
    def failures(self) -> int:
        """Whatever was not answered as asked."""
        return self.non_2xx + self.errors

    def to_json(self) -> dict[str, Any]:
        """As it is kept."""
        return {key: round(value, 4) for key, value in asdict(self).items()}


class Load:
    """A running `wrk`. `wait` for its end, or `stop` it early; both give what it measured."""

    def __init__(
        self,
        port: int,
        calls: Call | Sequence[Call],
        connections: int,
        seconds: float,
        cores: Iterable[int] | None,
    ) -> None:
        wrk = shutil.which("wrk")
        if wrk is None:
            raise SystemExit("Benchmarks need `wrk` (package wrk).")
        script = _script([calls] if isinstance(calls, Call) else list(calls))
        self.seconds = max(1, round(seconds))
        options = ["-t", "1", "-c", str(connections), "-d", f"{self.seconds}s", "--timeout", "30s"]
        command = pinned([wrk, *options, "-s", str(script), f"http://127.0.0.1:{port}/"], cores)
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def wait(self) -> Measured:
        """Until its time is over. Raises LoadFailed."""
        return self._read(self.seconds + 40)

    def stop(self) -> Measured:
        """Now: wrk prints what it has on SIGINT."""
        self.process.send_signal(signal.SIGINT)
        return self._read(40)

    def kill(self) -> None:
        """End it without a result."""
        self.process.kill()
        self.process.wait()

    def _read(self, timeout_s: float) -> Measured:
        try:
            out, _ = self.process.communicate(timeout=timeout_s)
        except BaseException:
            self.kill()
            raise
        for line in out.splitlines():
            if line.startswith("RESULT "):
                return _measured(json.loads(line.removeprefix("RESULT ")))
        raise LoadFailed(out.strip()[-300:] or "wrk printed nothing")


def run(
    port: int,
    calls: Call | Sequence[Call],
    connections: int,
    seconds: float,
    cores: Iterable[int] | None,
    warm_up_s: float = 1,
) -> Measured:
    """Warm up, then measure."""
    if warm_up_s:
        Load(port, calls, connections, warm_up_s, cores).wait()
    return Load(port, calls, connections, seconds, cores).wait()


def _measured(raw: dict[str, int]) -> Measured:
    seconds = raw["duration_us"] / 1e6
    return Measured(
        requests_per_s=(raw["requests"] - raw["status"]) / seconds,
        p50_ms=raw["p50_us"] / 1e3,
        p90_ms=raw["p90_us"] / 1e3,
        p99_ms=raw["p99_us"] / 1e3,
        max_ms=raw["max_us"] / 1e3,
        requests=raw["requests"],
        seconds=seconds,
        non_2xx=raw["status"],
        errors=raw["connect"] + raw["read"] + raw["write"] + raw["timeout"],
    )


def _script(calls: list[Call]) -> Path:
    """One call is sent as it is; several are sent in turn, made once before the run."""
    folder = scratch("wrk")
    lines = []
    for index, call in enumerate(calls):
        body = folder / f"body-{_digest(call.body)}"
        body.write_bytes(call.body)
        headers = ", ".join(f"[{json.dumps(key)}] = {json.dumps(value)}" for key, value in call.headers.items())
        lines.append(f"calls[{index + 1}] = {{{json.dumps(call.path)}, {{{headers}}}, {json.dumps(str(body))}}}")
    single = """
wrk.method, wrk.path, wrk.headers, wrk.body = "POST", calls[1][1], calls[1][2], read(calls[1][3])
"""
    several = """
local made, turn = {}, 0
init = function(_)
  for i, call in ipairs(calls) do made[i] = wrk.format("POST", call[1], call[2], read(call[3])) end
end
request = function() turn = turn % #made + 1; return made[turn] end
"""
    reader = 'local function read(p) local f = io.open(p, "rb"); local s = f:read("*a"); f:close(); return s end\n'
    text = reader + "local calls = {}\n" + "\n".join(lines) + (single if len(calls) == 1 else several) + _DONE
    path = folder / f"script-{_digest(text.encode())}.lua"
    path.write_text(text)
    return path


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
