"""Against PyTorch's own interpolation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from core.media import sampling


def places(small: int, large: int) -> np.ndarray:
    return (np.arange(large) + 0.5) * small / large - 0.5


def axes(of: tuple[int, int], to: tuple[int, int]) -> tuple[sampling.Axis, sampling.Axis]:
    return sampling.axis(places(of[0], to[0]), of[0]), sampling.axis(places(of[1], to[1]), of[1])


def interpolated(planes: np.ndarray, to: tuple[int, int]) -> np.ndarray:
    tensor = torch.from_numpy(planes)[None]
    return torch.nn.functional.interpolate(tensor, to, mode="bilinear", align_corners=False)[0].numpy()


@pytest.mark.parametrize("to", [(1, 1), (3, 5), (16, 12), (37, 101), (640, 333)])
@pytest.mark.parametrize("of", [(1, 1), (1, 9), (16, 12)])
def test_bilinear_is_pytorch_s(of: tuple[int, int], to: tuple[int, int]) -> None:
    plane = np.random.default_rng(1).standard_normal(of).astype(np.float32)
    assert sampling.bilinear(plane, *axes(of, to)) == pytest.approx(interpolated(plane[None], to)[0], abs=1e-5)


@pytest.mark.parametrize("planes", [2, 7, 300])
def test_the_best_plane_of_all_though_few_are_looked_at(monkeypatch: pytest.MonkeyPatch, planes: int) -> None:
    monkeypatch.setattr(sampling, "_TILE", (16, 20))  # several tiles
    of, to = (12, 9), (90, 70)
    chance = np.random.default_rng(planes)
    values = chance.standard_normal((planes, *of)).astype(np.float32) * chance.uniform(0.2, 2, (planes, 1, 1))
    values = values.astype(np.float32)
    large = interpolated(values, to)
    best = sampling.best_planes(values, *axes(of, to))
    assert best.dtype == (np.uint8 if planes <= 256 else np.uint16)
    taken = np.take_along_axis(large, best[None].astype(int), 0)[0]
    assert taken == pytest.approx(large.max(axis=0), abs=1e-5)
    assert (best == large.argmax(axis=0)).mean() > 0.999


def test_a_third_plane_may_win_between_two_that_win_at_the_samples() -> None:
    planes = np.array([[[1.0, 0.0]], [[0.0, 1.0]], [[0.7, 0.7]], [[0.1, 0.1]]], np.float32)
    assert sampling.best_planes(planes, *axes((1, 2), (1, 10))).tolist() == [[0, 0, 0, 0, 2, 2, 1, 1, 1, 1]]
    assert sampling._able(planes) == [0, 1, 2]


def test_equal_planes_give_the_first_and_nan_does_not_hurt() -> None:
    assert not sampling.best_planes(np.zeros((3, 2, 2), np.float32), *axes((2, 2), (4, 4))).any()
    assert not sampling.best_planes(np.full((3, 2, 2), np.nan, np.float32), *axes((2, 2), (4, 4))).any()


def test_above_reaches_the_threshold_in_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "_TILE", (7, 40))
    plane = np.random.default_rng(2).standard_normal((9, 7)).astype(np.float32)
    assert (
        sampling.above(plane, *axes((9, 7), (50, 40)), 0.25) == (interpolated(plane[None], (50, 40))[0] >= 0.25)
    ).all()
    rows, columns = axes((9, 7), (50, 40))
    assert sampling.above(plane, rows.part(4, 4), columns, 0.0).shape == (0, 40)
    assert sampling.above(plane, rows, columns.part(4, 4), 0.0).shape == (50, 0)


def test_nearest_is_pytorch_s() -> None:
    plane = torch.arange(12, dtype=torch.float32).reshape(1, 1, 3, 4)
    wanted = torch.nn.functional.interpolate(plane, (8, 9), mode="nearest-exact")[0, 0].numpy()
    rows, columns = sampling.nearest(places(3, 8), 3), sampling.nearest(places(4, 9), 4)
    assert (plane[0, 0].numpy()[rows[:, None], columns] == wanted).all()
