"""What libraries log."""

from __future__ import annotations

from logging import LogRecord

from absl import logging


def hide_logs(library: str) -> None:
    """Hides what the modules of a library log through absl, whose logger all libraries share."""
    logging.get_absl_logger().addFilter(lambda record: not _is_of(record, library))


def _is_of(record: LogRecord, library: str) -> bool:
    return f"/site-packages/{library}/" in record.pathname.replace("\\", "/")
