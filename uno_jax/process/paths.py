"""Paths as people write them."""

from __future__ import annotations

import os
import re


def local_path(text: str) -> str:
    """Expands `~` in a path of this machine's file system.

    Raises:
      ValueError: the text is empty, not UTF-8, a URL such as gs://bucket/run, or names the home of an unknown user.
    """
    if not text.strip() or "\0" in text:
        raise ValueError(f"{text!r}: expected a path")
    try:
        text.encode()
    except UnicodeEncodeError:  # bytes that Python could not decode, which libraries do not take
        raise ValueError(
            f"{text!r} is not UTF-8 text: rename it, or choose a locale for UTF-8, such as LC_ALL=C.UTF-8"
        ) from None
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text):
        raise ValueError(f"{text!r} is a URL: expected a path of this machine. Mount the bucket, or copy its files")
    expanded = os.path.expanduser(text)
    if expanded.startswith("~"):
        raise ValueError(f"{text!r}: no such home folder is known. For a file of this name, write ./{text}")
    return expanded
