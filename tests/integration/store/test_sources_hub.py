from __future__ import annotations

import asyncio
import io
import json
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.errors import (
    BadRequest,
    Conflict,
    DeadlineExceeded,
    Forbidden,
    InvalidPackage,
    SourceNotFound,
    SourceUnavailable,
    TooLarge,
    Unprocessable,
)
from core.settings import SourceSettings
from core.store.artifacts import ArtifactStore
from core.store.sources.fetcher import Fetcher
from core.store.sources.source import parse_source
from tests.hub_stand_in import COMMIT, TOKEN, HubStandIn, make_certificate, sha256
from tests.sourcing import MAX_BYTES, blob, cache_of, fetch

MODEL = blob(300_000)
FILES = {"onnx/model.onnx": MODEL, "config.json": b'{"model_type": "vit"}', "README.md": b"# A model"}


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def hub() -> Iterator[HubStandIn]:
    with HubStandIn({"acme/cats": dict(FILES), "acme/secret": dict(FILES)}, gated=("acme/secret",)) as hub:
        yield hub


def partial_sizes(folder: Path) -> list[int]:
    return [path.stat().st_size for path in (folder / "models_cache/partial").iterdir()]


def test_a_model_comes_over_a_redirect_with_its_commit_and_is_told_of_on_the_way(
    hub: HubStandIn, tmp_path: Path
) -> None:
    told: list[tuple[int, int | None]] = []
    fetched, data = fetch(tmp_path, "hf:acme/cats", hub_url=hub.url, told=told)
    assert data == MODEL
    assert fetched.received.sha256 == sha256(MODEL)
    assert fetched.filename == "onnx/model.onnx"
    assert fetched.commit == COMMIT
    total = len(MODEL) + len(FILES["config.json"])
    assert told[-1] == (total, total)
    assert [here for here, _ in told] == sorted(here for here, _ in told)
    assert len(hub.requests_of("kept/")) == 1
    assert f"resolve/{COMMIT}/" in hub.requests_of("resolve/")[0].path


@pytest.mark.parametrize("source", ["hf:acme/cats@v1", f"hf:acme/cats@{COMMIT}", "hf:acme/cats@refs/pr/1"])
def test_a_revision_is_asked_for(hub: HubStandIn, tmp_path: Path, source: str) -> None:
    assert fetch(tmp_path, f"{source}/onnx/model.onnx", hub_url=hub.url)[1] == MODEL
    assert hub.seen[0].path == f"api/models/acme/cats/revision/{source.partition('@')[2]}"


def test_what_was_fetched_before_is_not_fetched_again_and_can_be_had_offline(
    hub: HubStandIn, tmp_path: Path
) -> None:
    fetch(tmp_path, "hf:acme/cats", hub_url=hub.url)
    before = len(hub.requests_of("resolve/"))
    fetch(tmp_path, "hf:acme/cats", hub_url=hub.url)
    assert len(hub.requests_of("resolve/")) == before
    seen = len(hub.seen)
    assert fetch(tmp_path, "hf:acme/cats", hub_url=hub.url, offline=True)[1] == MODEL
    assert len(hub.seen) == seen


def test_offline_what_was_never_fetched_is_refused(hub: HubStandIn, tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailable, match=r"sources\.offline.*acme/cats at main"):
        fetch(tmp_path, "hf:acme/cats", hub_url=hub.url, offline=True)
    hub.repositories["acme/cats"]["other.onnx"] = blob(2000, 2)
    fetch(tmp_path, "hf:acme/cats", hub_url=hub.url)
    with pytest.raises(SourceUnavailable, match=r"other\.onnx"):
        fetch(tmp_path, "hf:acme/cats/other.onnx", hub_url=hub.url, offline=True)
    assert not hub.requests_of("other.onnx")


def test_a_transfer_that_breaks_is_taken_up_where_it_was(hub: HubStandIn, tmp_path: Path) -> None:
    hub.faults.cut_after["onnx/model.onnx"] = [100_000, 50_000]
    assert fetch(tmp_path, "hf:acme/cats", hub_url=hub.url)[1] == MODEL
    assert [one.range for one in hub.requests_of("kept/")] == [None, "bytes=100000-", "bytes=150000-"]


def test_a_hub_without_ranges_is_read_from_the_start(hub: HubStandIn, tmp_path: Path) -> None:
    hub.faults.cut_after["onnx/model.onnx"] = [100_000]
    hub.faults.no_ranges = True
    assert fetch(tmp_path, "hf:acme/cats", hub_url=hub.url)[1] == MODEL


def test_a_stall_is_noticed_and_the_transfer_taken_up(hub: HubStandIn, tmp_path: Path) -> None:
    hub.faults.stall_after["onnx/model.onnx"] = [200_000]
    assert fetch(tmp_path, "hf:acme/cats", hub_url=hub.url, stall_s=1)[1] == MODEL
    assert [one.range for one in hub.requests_of("kept/")] == [None, "bytes=200000-"]


def test_a_source_that_stalls_for_ever_is_given_up_and_the_next_try_goes_on(
    hub: HubStandIn, tmp_path: Path
) -> None:
    hub.faults.stall_after["onnx/model.onnx"] = [120_000, *[0] * 20]
    with pytest.raises(SourceUnavailable, match="what has come is kept"):
        fetch(tmp_path, "hf:acme/cats", hub_url=hub.url, stall_s=0.5)
    assert 2 <= len(hub.requests_of("kept/")) <= 10
    assert max(partial_sizes(tmp_path)) == 120_000
    hub.faults.stall_after.clear()
    assert fetch(tmp_path, "hf:acme/cats", hub_url=hub.url)[1] == MODEL
    assert hub.requests_of("kept/")[-1].range == "bytes=120000-"


def test_a_file_that_vanishes_half_way(hub: HubStandIn, tmp_path: Path) -> None:
    hub.faults.cut_after["onnx/model.onnx"] = [100_000]
    hub.faults.gone_after_first.add("onnx/model.onnx")
    with pytest.raises(SourceNotFound, match="not there any more; nothing was added"):
        fetch(tmp_path, "hf:acme/cats", hub_url=hub.url)
    assert not [entry for entry in (tmp_path / "artifacts").rglob("*") if entry.is_file()]


def test_a_wrong_checksum_is_refused_and_nothing_of_it_kept(hub: HubStandIn, tmp_path: Path) -> None:
    hub.faults.wrong_bytes.add("onnx/model.onnx")
    with pytest.raises(Unprocessable, match="checksum"):
        fetch(tmp_path, "hf:acme/cats", hub_url=hub.url)
    assert not partial_sizes(tmp_path)
    hub.faults.wrong_bytes.clear()
    assert fetch(tmp_path, "hf:acme/cats", hub_url=hub.url)[1] == MODEL


def test_a_wrong_small_file_is_found_by_git_s_own_checksum(hub: HubStandIn, tmp_path: Path) -> None:
    hub.faults.wrong_bytes.add("config.json")
    with pytest.raises(Unprocessable, match=r"config\.json.*checksum"):
        fetch(tmp_path, "hf:acme/cats", hub_url=hub.url)


def test_a_mirror_that_lists_no_checksums_tells_them_in_headers(hub: HubStandIn, tmp_path: Path) -> None:
    hub.faults.no_checksums = True
    assert fetch(tmp_path, "hf:acme/cats", hub_url=hub.url)[1] == MODEL
    assert (tmp_path / "models_cache/blobs" / sha256(MODEL)).is_file()


def test_a_gated_repository_asks_for_the_token(hub: HubStandIn, tmp_path: Path) -> None:
    with pytest.raises(Forbidden, match=r"gated: accept its terms on the hub, and set sources\.hub_token"):
        fetch(tmp_path, "hf:acme/secret", hub_url=hub.url)
    with pytest.raises(
        Forbidden, match=r"gated: accept its terms with the account of sources\.hub_token"
    ) as other:
        fetch(tmp_path, "hf:acme/secret", hub_url=hub.url, hub_token="hf_of_somebody_else")
    assert "somebody" not in str(other.value)
    assert fetch(tmp_path, "hf:acme/secret", hub_url=hub.url, hub_token=TOKEN)[1] == MODEL
    assert TOKEN not in repr(SourceSettings(hub_token=TOKEN))


def test_the_token_stays_with_the_hub(hub: HubStandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = make_certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with HubStandIn(hub.repositories, certificate=certificate) as elsewhere:
        hub.faults.redirect_to = elsewhere.url
        assert fetch(tmp_path, "hf:acme/secret", hub_url=hub.url, hub_token=TOKEN)[1] == MODEL
    assert {one.authorization for one in hub.seen} == {f"Bearer {TOKEN}"}
    assert [one.authorization for one in elsewhere.seen] == [None]


def test_a_redirect_away_from_the_hub_must_be_https(hub: HubStandIn, tmp_path: Path) -> None:
    with HubStandIn(hub.repositories) as elsewhere:
        hub.faults.redirect_to = elsewhere.url
        with pytest.raises(SourceUnavailable, match="without https"):
            fetch(tmp_path, "hf:acme/cats", hub_url=hub.url)
        assert not elsewhere.seen


@pytest.mark.parametrize("place", ["https://169.254.169.254", "https://[fe80::1]", "https://0.0.0.0"])
def test_a_redirect_to_the_machine_s_own_network_is_refused(hub: HubStandIn, tmp_path: Path, place: str) -> None:
    hub.faults.redirect_to = place
    with pytest.raises(SourceUnavailable, match="not fetched from"):
        fetch(tmp_path, "hf:acme/cats", hub_url=hub.url)


def test_a_circle_of_redirects_ends(hub: HubStandIn, tmp_path: Path) -> None:
    hub.faults.circle = True
    with pytest.raises(SourceUnavailable, match="circle"):
        fetch(tmp_path, "hf:acme/cats", hub_url=hub.url)
    assert len(hub.requests_of("resolve/")) < 10


def test_only_listed_organisations_may_be_fetched_from(hub: HubStandIn, tmp_path: Path) -> None:
    with pytest.raises(Forbidden, match=r"'acme'.*sources\.hub_organisations"):
        fetch(tmp_path, "hf:acme/cats", hub_url=hub.url, hub_organisations=["other"])
    with pytest.raises(Forbidden):
        fetch(tmp_path, "hf:acme/cats", hub_url=hub.url, hub_organisations=[])
    assert not hub.seen
    assert fetch(tmp_path, "hf:acme/cats", hub_url=hub.url, hub_organisations=["ACME"])[1] == MODEL


@pytest.mark.parametrize(
    ("source", "error", "says"),
    [
        ("hf:acme/dogs", SourceNotFound, "acme/dogs"),
        ("hf:acme/cats@v9", SourceNotFound, "no revision 'v9'"),
        ("hf:acme/cats/model.onnx", SourceNotFound, "near it are 'onnx/model.onnx'"),
        ("hf:acme/cats/zzz", SourceNotFound, r"it holds 'README\.md', 'config\.json'"),
    ],
)
def test_what_is_not_there_is_said(
    hub: HubStandIn, tmp_path: Path, source: str, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        fetch(tmp_path, source, hub_url=hub.url)


def test_a_hub_that_is_not_there_and_one_that_is_none(hub: HubStandIn, tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailable, match="cannot be reached") as refused:
        fetch(tmp_path, "hf:acme/cats", hub_url="http://127.0.0.1:1")
    assert "127.0.0.1" not in str(refused.value)
    hub.repositories["acme/cats"].clear()
    with pytest.raises(SourceNotFound, match=r"no \.onnx file"):
        fetch(tmp_path, "hf:acme/cats", hub_url=hub.url)


def test_several_models_are_a_choice_for_the_caller(hub: HubStandIn, tmp_path: Path) -> None:
    hub.repositories["acme/cats"] = {"a.onnx": blob(10, 1), "b/c.onnx": blob(10, 2)}
    with pytest.raises(BadRequest, match=r"several models: 'a\.onnx', 'b/c\.onnx'"):
        fetch(tmp_path, "hf:acme/cats", hub_url=hub.url)
    assert fetch(tmp_path, "hf:acme/cats/b/c.onnx", hub_url=hub.url)[1] == blob(10, 2)


def test_a_busy_hub_is_asked_again_for_a_file(hub: HubStandIn, tmp_path: Path) -> None:
    told: list[tuple[int, int | None]] = []

    class Busy(list):  # type: ignore[type-arg]
        def append(self, step: tuple[int, int | None]) -> None:
            if not told:
                hub.faults.busy = 3
            told.append(step)

    assert fetch(tmp_path, "hf:acme/cats", hub_url=hub.url, told=Busy())[1] == MODEL


def test_external_data_comes_along_in_a_package_that_is_the_same_every_time(
    hub: HubStandIn, tmp_path: Path
) -> None:
    hub.repositories["acme/cats"]["onnx/model.onnx_data"] = blob(5000, 7)
    fetched, data = fetch(tmp_path, "hf:acme/cats", hub_url=hub.url)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == {
            "model.onnx": MODEL,
            "model.onnx_data": blob(5000, 7),
        }
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    assert fetched.manifest is not None
    assert json.loads(fetched.manifest)["model"] == "model.onnx"
    assert fetch(tmp_path, "hf:acme/cats", hub_url=hub.url)[0].received.sha256 == fetched.received.sha256


def test_a_text_model_comes_with_its_tokenizer(hub: HubStandIn, tmp_path: Path) -> None:
    tokenizer = b'{"model": {"type": "WordPiece", "vocab": {"a": 0}}}'
    files = hub.repositories["acme/cats"]
    files["tokenizer.json"] = tokenizer
    files["1_Pooling/config.json"] = b'{"pooling_mode_cls_token": true}'
    fetched, data = fetch(tmp_path, "hf:acme/cats", hub_url=hub.url)
    assert fetched.manifest is not None
    manifest = json.loads(fetched.manifest)
    assert (manifest["task"], manifest["postprocess"]) == ("text-embedding", {"pooling": "cls"})
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == {
            "model.onnx": MODEL,
            "tokenizer.json": tokenizer,
        }
    _, own = fetch(tmp_path, "hf:acme/cats", hub_url=hub.url, manifest="task: text-classification")
    assert own == data
    _, tensors = fetch(tmp_path, "hf:acme/cats", hub_url=hub.url, task="tensor")
    assert tensors == MODEL


def test_a_model_over_the_cap_is_refused_before_it_is_fetched(hub: HubStandIn, tmp_path: Path) -> None:
    hub.repositories["acme/cats"]["onnx/model.onnx"] = bytes(MAX_BYTES + 1)
    with pytest.raises(TooLarge, match=r"store\.max_upload_bytes"):
        fetch(tmp_path, "hf:acme/cats", hub_url=hub.url)
    assert not hub.requests_of("resolve/")


def test_the_cache_keeps_to_its_cap_and_loses_the_oldest(hub: HubStandIn, tmp_path: Path) -> None:
    hub.repositories["acme/cats"] = {f"{n}.onnx": blob(100_000, n) for n in range(4)}
    for number in range(4):
        fetch(tmp_path, f"hf:acme/cats/{number}.onnx", hub_url=hub.url, cache_bytes=250_000)
    kept = {path.name for path in (tmp_path / "models_cache/blobs").iterdir()}
    assert kept == {sha256(blob(100_000, 2)), sha256(blob(100_000, 3))}
    with pytest.raises(TooLarge, match=r"sources\.cache_bytes"):
        fetch(tmp_path, "hf:acme/cats/0.onnx", hub_url=hub.url, cache_bytes=50_000)


def test_a_config_that_is_not_json_is_said_and_passed_over_with_a_manifest(
    hub: HubStandIn, tmp_path: Path
) -> None:
    hub.repositories["acme/cats"]["config.json"] = b"{"
    with pytest.raises(InvalidPackage, match=r"config\.json' is not JSON"):
        fetch(tmp_path, "hf:acme/cats", hub_url=hub.url)
    for beside in ({"manifest": "task: tensor"}, {"task": "tensor"}):
        fetched, data = fetch(tmp_path, "hf:acme/cats", hub_url=hub.url, **beside)
        assert data == MODEL
        assert fetched.manifest is None


def test_an_import_that_takes_too_long_is_given_up(hub: HubStandIn, tmp_path: Path) -> None:
    hub.faults.stall_after["onnx/model.onnx"] = [100]
    with pytest.raises(DeadlineExceeded, match=r"sources\.timeout_s"):
        fetch(tmp_path, "hf:acme/cats", hub_url=hub.url, timeout_s=0.3)


def test_one_who_leaves_leaves_what_has_come_and_two_do_not_fetch_the_same(
    hub: HubStandIn, tmp_path: Path
) -> None:
    hub.faults.stall_after["onnx/model.onnx"] = [100_000]
    settings = SourceSettings(hub_url=hub.url)
    store = ArtifactStore(tmp_path / "artifacts", max_bytes=MAX_BYTES, min_free_bytes=0)
    fetcher = Fetcher(settings, cache_of(tmp_path, settings), store, max_bytes=MAX_BYTES)
    source = parse_source("hf:acme/cats")

    async def run() -> None:
        arrived = asyncio.Event()
        first = asyncio.create_task(
            fetcher.fetch(source, lambda here, total: arrived.set() if here > 100_000 else None)
        )
        await arrived.wait()
        with pytest.raises(Conflict, match="fetched already"):
            await fetcher.fetch(source, lambda here, total: None)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert (await fetcher.fetch(source, lambda here, total: None)).received.sha256 == sha256(MODEL)

    asyncio.run(run())
    assert hub.requests_of("kept/")[-1].range == "bytes=100000-"
    assert threading.active_count() < 50
