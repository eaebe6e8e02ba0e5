from __future__ import annotations

import io
import stat
import threading
import warnings
import zipfile
from pathlib import Path

import pytest
from onnx_makers import onnx_bytes, zip_bytes

from core.errors import InvalidPackage, StorageFull, TooLarge
from core.store.archives import ArchiveLimits, extract
from core.store.disk import Stopped

MIB = 1 << 20
LIMITS = ArchiveLimits(max_files=20, max_bytes=64 * MIB, max_ratio=100)


def unpack(tmp_path: Path, data: bytes, limits: ArchiveLimits = LIMITS) -> list[str]:
    (tmp_path / "a.zip").write_bytes(data)
    target = tmp_path / "outer" / "target"
    target.mkdir(parents=True)
    return sorted(str(path.relative_to(target)) for path in extract(tmp_path / "a.zip", target, limits))


def with_entry(name: str, content: bytes = b"x", *, mode: int = 0, flags: int = 0) -> bytes:
    """A zip with one entry of any name, written past `zipfile`'s own cleaning."""
    info = zipfile.ZipInfo("placeholder.txt")
    info.filename = name
    info.external_attr = mode << 16
    info.create_system = 3
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(info, content)
    data = bytearray(buffer.getvalue())
    data[data.index(b"PK\x01\x02") + 8] |= flags
    data[6] |= flags
    return bytes(data)


def test_a_package_is_unpacked_without_litter_and_outer_folder(tmp_path: Path) -> None:
    files = {"net/model.yaml": "task: tensor", "net/w/a.bin": b"1", "__MACOSX/._x": b"", "net/.DS_Store": b""}
    assert unpack(tmp_path, zip_bytes(files)) == ["model.yaml", "w/a.bin"]
    assert (tmp_path / "outer/target/w/a.bin").read_bytes() == b"1"


@pytest.mark.parametrize(
    "name",
    ["../evil.txt", "a/../../evil.txt", "/etc/evil.txt", "C:/evil.txt", "C:evil.txt", "..\\evil.txt", "a\\b.txt",
     "./a.txt", "a//b.txt", "a\x00.txt", "a\n.txt", "*/_ORT_MEM_ADDR_/*.bin", "a/" * 20 + "b.txt",
     "é" * 200 + ".txt"],
)  # fmt: skip
def test_names_that_lead_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    data = with_entry(name)
    if "\0" not in name:
        assert zipfile.ZipFile(io.BytesIO(data)).namelist() == [name]
    with pytest.raises(InvalidPackage, match="The package names a file"):
        unpack(tmp_path, data)
    assert not list((tmp_path / "outer").rglob("*.txt"))


@pytest.mark.parametrize(
    ("mode", "what"),
    [
        (stat.S_IFLNK, "symbolic link"),
        (stat.S_IFCHR, "device"),
        (stat.S_IFBLK, "device"),
        (stat.S_IFIFO, "device"),
    ],
)
def test_links_and_devices_are_refused(tmp_path: Path, mode: int, what: str) -> None:
    data = with_entry("labels.txt", b"/etc/passwd", mode=mode | 0o777)
    assert stat.S_IFMT(zipfile.ZipFile(io.BytesIO(data)).infolist()[0].external_attr >> 16) == mode
    with pytest.raises(InvalidPackage, match=what):
        unpack(tmp_path, data)


def test_encrypted_entries_are_refused(tmp_path: Path) -> None:
    data = with_entry("labels.txt", flags=1)
    with pytest.raises(RuntimeError, match="encrypted"):
        zipfile.ZipFile(io.BytesIO(data)).read("labels.txt")
    with pytest.raises(InvalidPackage, match="encrypted"):
        unpack(tmp_path, data)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_unusual_compression_is_refused(tmp_path: Path, method: int) -> None:
    with pytest.raises(InvalidPackage, match="unusual way"):
        unpack(tmp_path, zip_bytes({"a.txt": "a"}, method))


@pytest.mark.parametrize("names", [("a.txt", "a.txt"), ("a.txt", "A.TXT"), ("é.txt", "e\u0301.txt")])
def test_duplicate_names_are_refused(tmp_path: Path, names: tuple[str, str]) -> None:
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w") as archive:
        warnings.simplefilter("ignore")
        for name in names:
            archive.writestr(name, name)
    assert len(zipfile.ZipFile(buffer).namelist()) == 2
    with pytest.raises(InvalidPackage, match="twice"):
        unpack(tmp_path, buffer.getvalue())


def test_a_file_that_is_a_folder_too_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidPackage, match="is a file as well"):
        unpack(tmp_path, zip_bytes({"a.bin": "", "A.bin/b.txt": ""}))


@pytest.mark.parametrize("name", ["inner.zip", "inner.tar.gz", "weights.bin"])
def test_nested_archives_are_refused_by_name_and_by_content(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidPackage, match="another archive"):
        unpack(tmp_path, zip_bytes({"model.yaml": "", name: zip_bytes({"a.txt": "a"})}))


def test_archives_of_pytorch_may_lie_in_a_package(tmp_path: Path) -> None:
    inner = zip_bytes({"a.txt": "a"})
    files = unpack(tmp_path, zip_bytes({"model.yaml": "", "model.pt": inner, "other.pt2": inner}))
    assert set(files) == {"model.yaml", "model.pt", "other.pt2"}


@pytest.mark.parametrize("name", ["model.py", "model.pkl", "run.sh", "lib.so", "model.pth", "noextension"])
def test_other_files_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidPackage, match="only: leave it out"):
        unpack(tmp_path, zip_bytes({"model.yaml": "", name: "x"}))


def test_a_bomb_is_stopped_by_its_ratio(tmp_path: Path) -> None:
    data = zip_bytes({"a.bin": bytes(32 * MIB)})
    assert len(data) < 64 << 10
    with pytest.raises(TooLarge, match="zip bomb"):
        unpack(tmp_path, data)
    assert sum(path.stat().st_size for path in (tmp_path / "outer").rglob("*.bin")) <= 4 * MIB


def test_a_bomb_is_stopped_by_its_size(tmp_path: Path) -> None:
    data = zip_bytes({f"{n}.bin": bytes(8 * MIB) for n in range(8)})
    with pytest.raises(TooLarge, match="max_unpacked_bytes"):
        unpack(tmp_path, data, ArchiveLimits(max_files=20, max_bytes=10 * MIB, max_ratio=10_000))


def test_a_bomb_is_stopped_by_its_count(tmp_path: Path) -> None:
    with pytest.raises(TooLarge, match="max_archive_files"):
        unpack(tmp_path, zip_bytes({f"{n}.txt": "" for n in range(21)}))


def test_entries_that_share_their_bytes_do_not_hide_a_bomb(tmp_path: Path) -> None:
    """Fifteen directory entries for the same packed bytes, each of a harmless ratio."""
    data = zip_bytes({"aaaa.bin": bytes(range(256)) * (MIB // 256) * 2})
    start, end = data.index(b"PK\x01\x02"), data.index(b"PK\x05\x06")
    tail = bytearray(data[end:])
    tail[8:10] = tail[10:12] = (15).to_bytes(2, "little")
    tail[12:16] = ((end - start) * 15).to_bytes(4, "little")
    overlapping = data[:start] + data[start:end] * 15 + bytes(tail)
    assert sum(info.file_size for info in zipfile.ZipFile(io.BytesIO(overlapping)).infolist()) == 30 * MIB
    with pytest.raises(InvalidPackage, match="twice"):
        unpack(tmp_path, overlapping)


def test_a_header_that_lies_about_the_size_is_found_out(tmp_path: Path) -> None:
    data = bytearray(zip_bytes({"a.bin": bytes(4 * MIB)}))
    directory = data.index(b"PK\x01\x02")
    data[directory + 24 : directory + 28] = (10).to_bytes(4, "little")
    assert zipfile.ZipFile(io.BytesIO(data)).infolist()[0].file_size == 10
    with pytest.raises(InvalidPackage, match="damaged"):
        unpack(tmp_path, bytes(data))


def test_damaged_bytes_are_found_out(tmp_path: Path) -> None:
    data = bytearray(zip_bytes({"model.onnx": onnx_bytes()}, zipfile.ZIP_STORED))
    data[60] ^= 0xFF
    with pytest.raises(InvalidPackage, match="damaged"):
        unpack(tmp_path, bytes(data))


@pytest.mark.parametrize("position", range(0, 300, 7))
def test_no_flipped_byte_gets_out_as_another_error(tmp_path: Path, position: int) -> None:
    data = bytearray(zip_bytes({"model.yaml": "task: tensor", "labels.txt": "a\nb", "w/x.bin": b"123"}))
    data[position % len(data)] ^= 0xFF
    refused = False
    try:
        files = unpack(tmp_path, bytes(data))
    except (InvalidPackage, TooLarge):
        refused = True
    assert refused or len(files) == 3


def test_an_empty_zip_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidPackage, match="no files"):
        unpack(tmp_path, zip_bytes({}))


def test_too_little_disk_space_is_said(tmp_path: Path) -> None:
    with pytest.raises(StorageFull):
        unpack(tmp_path, zip_bytes({"a.bin": b"1"}), ArchiveLimits(9, MIB, 100, min_free_bytes=1 << 60))


def test_unpacking_stops_when_told(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(zip_bytes({"a.bin": b"1"}))
    stop = threading.Event()
    stop.set()
    (tmp_path / "t").mkdir()
    with pytest.raises(Stopped):
        extract(tmp_path / "a.zip", tmp_path / "t", LIMITS, stop)
