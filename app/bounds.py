"""What the settings bound, in the terms of those who keep to it."""

from __future__ import annotations

from typing import Any

from core.control.memory import node_bytes
from core.serving.sequences import SequenceLimits
from core.settings import Settings, budget_bytes
from core.tasks.base import MediaLimits


def sequence_limits(settings: Settings) -> SequenceLimits:
    """How much is kept of sequences."""
    kept = settings.sequences
    return SequenceLimits(kept.max_sequences, kept.idle_s, kept.max_state_bytes)


def media_limits(settings: Settings) -> MediaLimits:
    """What tasks hold their callers' media to."""
    caps = settings.inference
    return MediaLimits(caps.max_pixels, caps.max_audio_s, caps.max_audio_bytes, caps.max_text_bytes)


def engine_extras(settings: Settings) -> dict[str, dict[str, Any]]:
    """What engines are told besides, by their names."""
    plans = {"cache_dir": str(settings.plans_dir), "trust_plans": settings.engines.trust_plans}
    return {"tensorrt": plans}


def memory_budget(settings: Settings) -> int:
    """Bytes of host memory that models may take together; 0 where that is not limited."""
    return budget_bytes(settings.inference.memory_budget, node_bytes())
