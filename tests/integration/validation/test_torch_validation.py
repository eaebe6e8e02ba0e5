"""PyTorch's formats and OpenVINO's IR in the validator's process."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from core.settings import ValidationSettings
from core.validation.runner import ValidationResult, validate
from tests.torch_forwards import loops, reads_a_file, weighs
from tests.torch_models import changed, payload, program, script, told
from tests.unit.engines.models import ir_doubling

LIMITS = ValidationSettings(memory_bytes=4 << 30, cpu_s=60, wall_s=60)


def check(folder: Path, name: str, content: bytes, limits: ValidationSettings = LIMITS, **said: Any) -> Any:
    """The result, and each row's detail by its check."""
    (folder / name).write_bytes(content)
    format_ = {".pt": "torchscript", ".pt2": "pt2", ".xml": "openvino"}[Path(name).suffix]
    manifest = {"model": name, "format": format_, **said}
    result: ValidationResult = asyncio.run(validate(folder, manifest, limits))
    return result, {row["check"]: row["detail"] for row in result.report}


def test_a_script_is_valid_with_every_check(tmp_path: Path) -> None:
    result, rows = check(tmp_path, "net.pt", script(weighs), **told())
    assert result.ok, result.report
    assert result.signature == told()
    assert "None of its" in rows["operators"]
    assert "by the engine torch" in rows["load"]
    assert "batches of 1 and 2" in rows["dry_run"]


def test_a_program_is_valid_with_every_check(tmp_path: Path) -> None:
    result, rows = check(tmp_path, "net.pt2", program(weighs))
    assert result.ok, result.report
    assert result.signature == told()
    assert "ATen's own" in rows["operators"]
    assert "by the engine torch" in rows["load"]


def test_a_script_that_loops_took_too_long(tmp_path: Path) -> None:
    limits = ValidationSettings(memory_bytes=4 << 30, cpu_s=100, wall_s=10)
    result, rows = check(tmp_path, "net.pt", script(loops), limits, **told())
    assert not result.ok
    assert "took longer than 10 s" in rows["dry_run"]


def test_a_script_that_gives_other_than_was_told_is_invalid(tmp_path: Path) -> None:
    result, rows = check(tmp_path, "net.pt", script(weighs), **{**told(), "outputs": told("INT64")["outputs"]})
    assert not result.ok
    assert "output y came as float32 [1, 3], but INT64 [-1, 3]" in rows["dry_run"]


def _weight(trace: Path) -> bytes:
    config = "data/weights/model_weights_config.json"
    return changed(
        program(weighs),
        {
            config: lambda text: text.replace(b'"use_pickle": false', b'"use_pickle": true'),
            "data/weights/weight_0": lambda _: payload(trace),
        },
    )


@pytest.mark.parametrize(
    ("name", "said"), [("net.pt", "the word 'from_file'"), ("net.pt2", "keeps weight as a pickle")]
)
def test_what_reaches_out_is_refused_before_pytorch_sees_it(tmp_path: Path, name: str, said: str) -> None:
    trace = tmp_path / "it-ran"
    content = script(reads_a_file) if name == "net.pt" else _weight(trace)
    result, rows = check(tmp_path, name, content, **(told() if name == "net.pt" else {}))
    assert not result.ok
    assert said in rows["operators"]
    assert "load" not in rows
    assert not trace.exists()


def test_an_ir_is_valid_with_every_check(tmp_path: Path) -> None:
    path = ir_doubling(tmp_path)
    result, rows = check(tmp_path, path.name, path.read_bytes())
    assert result.ok, result.report
    assert "OpenVINO IR of version 11" in rows["parse"]
    assert "by the engine openvino" in rows["load"]


GROWING = b'<!DOCTYPE net [<!ENTITY a "aaaa">]><net name="&a;" version="11"></net>'


@pytest.mark.parametrize(
    ("content", "check_name", "said"),
    [
        (GROWING, "parse", "declares entities"),
        (b'<net name="a" version="11"><layers>', "parse", "cut short"),
        (b'<net name="a" version="11"><layers/></net>', "parse", "no layers"),
        (b'<net version="11"><layers><layer type="Const"><data offset="9" size="1"/></layer></layers></net>',
         "external_data", "past the end of the weights: 10 of 4"),
        (b'<net version="11"><layers><layer type="Mine" version="extension"/></layers></net>',
         "operators", "not OpenVINO's own: 'Mine'"),
    ],
)  # fmt: skip
def test_an_ir_that_is_wrong_is_refused_before_openvino_sees_it(
    tmp_path: Path, content: bytes, check_name: str, said: str
) -> None:
    (tmp_path / "net.bin").write_bytes(b"1234")
    result, rows = check(tmp_path, "net.xml", content)
    assert not result.ok
    assert said in rows[check_name]
    assert "load" not in rows
