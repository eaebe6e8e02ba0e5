"""Kills a server again and again while it takes uploads, deployments and removals, and looks what is left.

`python -m benchmarks.kill_campaign --kills 1000`: each round, callers upload versions, deploy and remove them
until the server is killed with SIGKILL after a random time; it is started again, and then everything that was
acknowledged must be there, nothing half-done may be seen, and the doctor must find nothing to mend. Every few
rounds it is also waited until all that is there is valid and serves; in between the next kill meets a server that
is still at it.

A campaign has legs of some kills, each with a seed of its own, from which all that is random comes, and a data
directory of its own. Some legs have two workers, of which the control process alone is killed or all at once, some
have PostgreSQL. Each is added to results/kill_campaign.json as it ends, and a campaign that is started again goes
on after the last one. A leg ends with the first thing that it finds, and then leaves its directory behind.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from app.lifespan import check_task, make_store
from benchmarks.harness.machine import revision
from benchmarks.kill_callers import Book, Caller, Tally
from core.control.doctor import Doctor
from core.control.uploads import Uploads
from core.database.session import Database
from core.settings import DatabaseSettings, Settings, StoreSettings
from core.store.importer import Importer
from tests.databases import fresh_database
from tests.processes import family
from tests.servers import RunningServer, wait_until

RESULTS = Path(__file__).parent / "results/kill_campaign.json"
NAMES = ("ant", "bee", "cat")
PATIENCE_S: Final = 300.0
"""A machine that does much else may be slow; what hangs hangs longer."""
DEEP_EVERY: Final = 6


@dataclass(frozen=True)
class Leg:
    """What one leg is run with."""

    seed: int
    workers: int = 1
    database: str = "sqlite"


def leg_of(seed: int) -> Leg:
    """Of each five, one has two workers, and one PostgreSQL."""
    return Leg(seed, 2 if seed % 5 == 2 else 1, "postgresql" if seed % 5 == 4 else "sqlite")


class Campaign:
    """One leg: `run` so many kills."""

    def __init__(self, folder: Path, leg: Leg, database_url: str | None = None) -> None:
        self._chance = random.Random(leg.seed)
        self._books = {name: Book() for name in NAMES}
        self.tally = Tally()
        self._database_url = database_url
        variables = {} if database_url is None else {"PULVINAR_DATABASE__URL": database_url}
        flags = () if leg.workers == 1 else ("--workers", str(leg.workers))
        self._server = RunningServer(folder, variables, flags=flags)
        self._server.patience_s = PATIENCE_S

    def run(self, kills: int, *, most_s: float = 1.5, until: float = float("inf")) -> Tally:
        """Kill so often, or until that moment of `time.monotonic()`; ends with the first that finds anything.

        Each kill comes after a random time of up to `most_s`.
        """
        self._server.start()
        try:
            while self.tally.kills < kills and time.monotonic() < until and not self.tally.failures:
                last = self.tally.kills + 1 == kills
                self._round(self._chance.uniform(0, most_s), deep=last or self.tally.kills % DEEP_EVERY == 0)
        except AssertionError as error:
            self._wrong(str(error)[-2000:])
        finally:
            self._server.kill()
        return self.tally

    def _round(self, after_s: float, *, deep: bool) -> None:
        callers = [
            Caller(self._server, name, book, self.tally, random.Random(self._chance.random()))
            for name, book in self._books.items()
        ]
        uploads = self.tally.uploads
        for caller in callers:
            caller.start()
        if deep:  # however slow the machine is, some rounds have what can be lost
            wait_until("An upload", lambda: self.tally.uploads > uploads or callers_done(callers), PATIENCE_S)
        time.sleep(after_s)
        self._kill(all_of_it=self._chance.random() < 0.5)
        for caller in callers:
            caller.join()
            self.tally.failures += caller.wrong
        self._server.kill()
        self.tally.kills += 1
        if deep:
            self._server.forget_login()  # a session does not last for a leg on a slow machine
        self._server.start(wait_ready=deep)
        for name, book in self._books.items():
            self._look(name, book, deep=deep)
        self._examine()
        self.tally.cleared_at_starts = sum(one["things"] for one in self._server.log_events("store.cleared"))

    def _kill(self, *, all_of_it: bool) -> None:
        """The server, or all its processes; without workers that is nearly the same: the others end with it."""
        pids = [one.pid for one in family(self._server)] if all_of_it else [self._server.process.pid]
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _look(self, name: str, book: Book, *, deep: bool) -> None:
        answer = self._server.api("GET", f"/models/{name}")
        if answer.status_code == 404:
            if book.exists:
                self._wrong(f"{name} is gone, which was acknowledged")
            self._books[name] = Book()
            return
        if book.exists is False:
            self._wrong(f"{name} is there, which was removed")
        there = {one["version"]: one for one in answer.json()["versions"]}
        for number, sha256 in book.versions.items():
            if number not in there or there[number]["sha256"] != sha256:
                self._wrong(f"{name}/{number} is lost, which was acknowledged")
        for number, one in there.items():
            status = self._server.wait_version(name, number, PATIENCE_S)["status"] if deep else one["status"]
            if status not in (("valid",) if deep else ("valid", "validating")):
                self._wrong(f"{name}/{number} is {status} after the start")
        book.exists, book.versions = True, {number: one["sha256"] for number, one in there.items()}
        self._look_at_deployment(name, book, deep=deep)

    def _look_at_deployment(self, name: str, book: Book, *, deep: bool) -> None:
        answer = self._server.api("GET", f"/models/{name}/deployment")
        if answer.status_code == 404:
            if book.deployed:
                self._wrong(f"the deployment of {name} is lost, which was acknowledged")
            return
        desired = answer.json()["desired"]
        if desired["generation"] < book.generation:
            self._wrong(f"generation {book.generation} of {name} is lost, which was acknowledged")
        version = desired["traffic"][0]["version"]
        if desired["generation"] == book.generation and book.deployed not in (0, version):
            self._wrong(f"{name} desires {version}, and {book.deployed} was acknowledged")
        book.generation = desired["generation"]
        book.deployed = version if desired["running"] else 0
        if desired["running"] and deep:
            self._server.wait_generation(name, desired["generation"])

    def _examine(self) -> None:
        for finding in asyncio.run(examine(self._server.data_dir, self._database_url)):
            self._wrong(f"the doctor: {finding}")

    def _wrong(self, what: str) -> None:
        self.tally.failures.append(f"after kill {self.tally.kills}: {what}")


async def examine(data_dir: Path, database_url: str | None) -> list[str]:
    """What the doctor finds, beside the running server; but for how full this machine's disk is."""
    where = DatabaseSettings.model_validate({"url": database_url})
    settings = Settings(data_dir=data_dir, database=where, store=StoreSettings(min_free_bytes=0))
    database, store = Database(settings.database_url), make_store(settings)
    uploads = Uploads(database, store, Importer(store, settings.store, check_task))
    try:
        doctor = Doctor(settings, store, uploads, database)
        found = [one async for one in doctor.examine() if one.level != "ok" and one.check != "disk"]
    finally:
        store.close()
        await database.close()
    return [f"{one.check}: {one.message}" for one in found]


def callers_done(callers: list[Caller]) -> bool:
    """Whether none of them is at work any more."""
    return not any(caller.is_alive() for caller in callers)


@contextmanager
def database_of(leg: Leg, folder: Path) -> Iterator[str | None]:
    """The URL of the leg's own database; None for the one that a server makes itself."""
    if leg.database == "sqlite":
        yield None
        return
    with fresh_database(leg.database, folder) as url:
        yield url


def run_leg(leg: Leg, kills: int, until: float) -> dict[str, Any]:
    """Run one leg, and answer what is kept of it."""
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix=f"pulvinar-kills-{leg.seed}-"))
    with database_of(leg, folder) as url:
        tally = Campaign(folder / "server", leg, url).run(kills, until=until)
    if tally.failures:
        print(f"{folder} is left as it was found", flush=True)
    else:
        shutil.rmtree(folder)
    return {
        **asdict(leg),
        **asdict(tally),
        "minutes": round((time.monotonic() - began) / 60, 1),
        "revision": revision(),
        "machine": platform.machine(),
        "python": platform.python_version(),
    }


def summary(legs: list[dict[str, Any]]) -> str:
    """What all legs together come to."""
    sums = {key: sum(leg[key] for leg in legs) for key in ("kills", "uploads", "deployments", "removals")}
    unclean = sum(bool(leg["failures"]) for leg in legs)
    done = ", ".join(f"{value} {key}" for key, value in sums.items())
    return f"{len(legs)} legs, {done}; {unclean} of the kills unclean"


def main() -> None:
    """Go on until there are so many kills, and keep each leg."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=1000, help="in all legs that are kept")
    parser.add_argument("--each", type=int, default=25, help="kills of one leg")
    parser.add_argument("--seed", type=int, help="of the next leg; after the last one, when left out")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after so long")
    arguments = parser.parse_args()
    until = time.monotonic() + 60 * arguments.minutes
    legs: list[dict[str, Any]] = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    seed = arguments.seed or max((leg["seed"] for leg in legs), default=0) + 1
    while (left := arguments.kills - sum(leg["kills"] for leg in legs)) > 0 and time.monotonic() < until:
        legs.append(run_leg(leg_of(seed), min(arguments.each, left), until))
        RESULTS.write_text(json.dumps(legs, indent=1) + "\n")
        print(json.dumps(legs[-1]), flush=True)
        print(summary(legs), flush=True)
        seed += 1
    raise SystemExit(any(leg["failures"] for leg in legs))


if __name__ == "__main__":
    main()
