"""Structured logs: JSON in production, readable in development; every line carries the request's id."""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TextIO, cast

import orjson
import structlog
from structlog.typing import Processor

if TYPE_CHECKING:  # an engine's process logs without the settings, whose imports are a third of its start
    from core.settings import LogSettings


class _Stderr:
    """Standard error, as it is at each line. A line that cannot be written is lost: a full disk or a pipe without
    a reader must not stop the one who has something to say.
    """

    def write(self, text: str) -> int:
        """Write, if that can be done."""
        try:
            return sys.stderr.write(text)
        except (OSError, ValueError):  # the latter: closed
            return 0

    def flush(self) -> None:
        """Flush, if that can be done."""
        with suppress(OSError, ValueError):
            sys.stderr.flush()


def set_up_logs(settings: LogSettings, *, prod: bool) -> None:
    """Log as the settings say; see `log_at`."""
    log_at(settings.level, as_json=settings.format == "json" or (settings.format == "auto" and prod))


def log_at(least: str, *, as_json: bool = False) -> None:
    """Configure structlog and send the standard library's logs the same way, all to standard error.

    `least` is the lowest level that is logged, such as `info`.
    """
    level = getattr(logging, least.upper())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    ending: list[Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(serializer=_to_json)]
        if as_json
        # Plain traces: others show the values of variables, passwords and tokens among them.
        else [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            )
        ]
    )
    structlog.configure(
        processors=[*shared, *ending],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(cast(TextIO, _Stderr())),
        cache_logger_on_first_use=False,  # a reload may change all of this
    )
    handler = logging.StreamHandler(_Stderr())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *ending],
        )
    )
    logging.basicConfig(level=max(level, logging.WARNING), handlers=[handler], force=True)
    # It warns of each malformed body, which its sender is told: lines at the will of callers, of no request.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)


def _to_json(value: Any, **_: Any) -> str:
    return orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
