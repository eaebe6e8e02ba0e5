"""From trials to a recommendation."""

from __future__ import annotations

import pytest

from core.optimiser.candidate import Candidate, Fidelity, Figures, Setting, Status, TrialResult, Variant
from core.optimiser.recommendation import judge, pareto, recommend

INT8 = Variant("onnx", "int8-static", "int8")
BF16 = Variant("openvino", "", "bf16")


def _trial(
    number: int,
    variant: Variant,
    p50_ms: float,
    *,
    status: Status = "ok",
    reason: str = "",
    throughput: float = 100.0,
    memory: int = 100,
    loss: float = 0.0,
) -> TrialResult:
    fidelity = Fidelity(200, 1 - loss, 0.1, 1 - loss)
    figures = Figures(p50_ms, 2 * p50_ms, throughput, memory, 0.1, fidelity)
    return TrialResult(
        number, Candidate(variant, Setting(2)), status, reason, figures, 10 / p50_ms, reference=number == 1
    )


REFERENCE = _trial(1, Variant("onnx"), 10.0)


def test_the_fastest_that_may_be_chosen_is() -> None:
    garbage = _trial(2, INT8, 2.0, status="rejected", reason="It loses 40.00%, and at most 1.00% is allowed.")
    found = recommend([REFERENCE, garbage, _trial(3, BF16, 4.0, loss=0.005)], "latency", 0.05)
    assert found is not None
    assert (found.trial, found.gain) == (3, 2.5)
    assert found.reasons == (
        "openvino bf16, 2 threads, 1 slot, batches of 1 is 2.50 times as fast as the reference.",
        "On 200 judging items, 0.50% of the top answers differ.",
        "Repeats of the reference differed by 5% on this machine.",
        "onnx int8 (int8-static), 2 threads, 1 slot, batches of 1 is 5.00 times as fast as the reference, and was "
        "rejected. It loses 40.00%, and at most 1.00% is allowed.",
    )


@pytest.mark.parametrize(
    ("p50_ms", "noise", "trial"), [(9.0, 0.2, 1), (9.0, 0.05, 2), (9.8, 0.0, 1), (12.0, 0.0, 1)]
)
def test_a_gain_must_exceed_the_noise_and_be_worth_it(p50_ms: float, noise: float, trial: int) -> None:
    found = recommend([REFERENCE, _trial(2, BF16, p50_ms)], "latency", noise)
    assert found is not None
    assert found.trial == trial
    if trial == 1:
        assert found.gain == 1.0
        assert "reference stays" in found.reasons[0]


@pytest.mark.parametrize(
    ("noise", "p50_ms", "trial"),
    [(0.2, 4.1, 3), (0.03, 4.1, 3), (0.02, 4.1, 2), (0.2, 4.3, 2)],
)
def test_of_those_that_are_as_fast_the_least_lossy_is_chosen(noise: float, p50_ms: float, trial: int) -> None:
    lossy, exact = _trial(2, INT8, 4.0, loss=0.008), _trial(3, BF16, p50_ms, loss=0.0)
    found = recommend([REFERENCE, lossy, exact], "latency", noise)
    assert found is not None
    assert found.trial == trial


def test_without_a_reference_there_is_none() -> None:
    assert recommend([], "latency", 0.0) is None


def test_made_up_inputs_are_said_so() -> None:
    found = recommend([REFERENCE], "latency", 0.0, synthetic=True)
    assert found is not None
    assert "inputs were random" in found.reasons[-1]


@pytest.mark.parametrize(
    ("loss", "lossy", "synthetic", "why"),
    [
        (0.01, True, False, ""),
        (0.011, True, False, "at most 1.00%"),
        (None, True, False, "could not be compared"),
        (0.0, True, True, "no samples"),
        (0.0, False, True, ""),
        (0.5, False, False, "at most 1.00%"),
    ],
)
def test_who_may_be_chosen(loss: float | None, lossy: bool, synthetic: bool, why: str) -> None:
    fidelity = None if loss is None else Fidelity(200, 1 - loss, 0.1)
    said = judge(fidelity, 0.01, lossy=lossy, synthetic=synthetic)
    assert why in said
    assert bool(said) == bool(why)


def test_too_few_judges_choose_nothing_lossy() -> None:
    assert "19 items judge" in judge(Fidelity(19, 1.0, 0.0, 1.0), 0.01, lossy=True, synthetic=False)
    assert not judge(Fidelity(19, 1.0, 0.0, 1.0), 0.01, lossy=False, synthetic=False)


def test_the_pareto_table_has_what_no_other_beats() -> None:
    trials = [
        _trial(1, Variant("onnx"), 10, throughput=100, memory=100),
        _trial(2, BF16, 5, throughput=200, memory=150),
        _trial(3, INT8, 6, throughput=150, memory=160),
        _trial(4, INT8, 1, throughput=900, memory=10, status="rejected"),
    ]
    assert pareto(trials) == [1, 2]


@pytest.mark.parametrize(
    ("fidelity", "loss", "label"),
    [
        (Fidelity(10, 0.98, 1.0), 0.02, "lost in cosine similarity"),
        (Fidelity(10, 0.98, 1.0, 0.9), 0.1, "of the top answers differ"),
        (Fidelity(100, 0.98, 1.0, 0.9, 0.8, 0.85, 60), 0.05, "of the labelled samples' accuracy lost"),
        (Fidelity(100, 0.98, 1.0, 0.9, 0.9, 0.85, 60), 0.0, "of the labelled samples' accuracy lost"),
        # Few labels, or labels that the reference itself does not meet, prove nothing.
        (Fidelity(100, 0.98, 1.0, 0.9, 1.0, 1.0, 5), 0.1, "of the top answers differ"),
        (Fidelity(100, 0.98, 1.0, 0.9, 0.0, 0.0, 60), 0.1, "of the top answers differ"),
    ],
)
def test_what_is_lost(fidelity: Fidelity, loss: float, label: str) -> None:
    assert fidelity.loss == pytest.approx(loss)
    assert fidelity.loss_label == label
