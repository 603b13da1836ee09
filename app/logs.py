"""How log lines look: JSON for machines, columns for people. Called by the command line, never at import.

Lines carry no user data: no text, no file name, no header but the request id.
"""

from __future__ import annotations

import logging
import sys
from typing import Literal

import structlog
from structlog.tracebacks import ExceptionDictTransformer

# Without locals in either style: those are requests, with their keys and inputs.
_TRACEBACK = ExceptionDictTransformer(show_locals=False)


def configure(*, style: Literal["auto", "json", "console"], level: str) -> None:
    """Send the records of every standard logger to stderr, one line each."""
    as_json = style == "json" or (style == "auto" and not sys.stderr.isatty())
    shared: list[structlog.types.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: list[structlog.types.Processor] = (
        [structlog.processors.ExceptionRenderer(_TRACEBACK), structlog.processors.JSONRenderer()]
        if as_json
        else [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
    )
    shared.append(_without_color_message)
    remove_meta = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=[remove_meta, *last])
    )
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    logging.captureWarnings(capture=True)
    # They warn of every malformed request, some with its bytes; we log each refusal ourselves, without.
    for name in ("python_multipart", "app.api.guard"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _without_color_message(
    _logger: object, _method: str, event: structlog.types.EventDict
) -> structlog.types.EventDict:
    """uvicorn adds the same message again with terminal colours."""
    event.pop("color_message", None)
    return event
