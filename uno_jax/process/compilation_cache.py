"""JAX's persistent compilation cache, for commands with long compile times (docs/install.md)."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import jax

_DIRECTORY = "JAX_COMPILATION_CACHE_DIR"
_MIN_SECONDS = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"


def cache_directory() -> Path | None:
    """Returns the directory of the compilation cache, and creates it if needed; None if the cache is off.

    The directory is `$JAX_COMPILATION_CACHE_DIR`, by default `uno_jax/compilation` in `$XDG_CACHE_HOME` or `~/.cache`.
    An empty `JAX_COMPILATION_CACHE_DIR` or `JAX_ENABLE_COMPILATION_CACHE=false` turns the cache off. A directory that
    is not writable also turns it off, with a warning on stderr. None is also returned for a URL, which JAX handles.
    """
    given = os.environ.get(_DIRECTORY)
    if given == "" or _is_url(given) or not jax.config.values["jax_enable_compilation_cache"]:
        return None
    try:
        caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        directory = Path(given or Path(caches, "uno_jax", "compilation")).expanduser()
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            return directory
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home directory
        advice = f"set {_DIRECTORY} to a writable directory, or leave it empty to turn the cache off"
        print(f"warning: the compilation cache is off: {error}; {advice}", file=sys.stderr)
        return None


def keep_compiled_programs() -> None:
    """Turns on JAX's persistent compilation cache. Must run before the first compilation."""
    directory = cache_directory()
    if not _is_url(os.environ.get(_DIRECTORY)):
        jax.config.update("jax_compilation_cache_dir", directory and str(directory))
    if _MIN_SECONDS not in os.environ:
        # By default JAX only keeps programs that took a second to compile. A command has dozens that take less.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def _is_url(directory: str | None) -> bool:
    """Whether the directory is a URL, such as a storage bucket, that JAX accesses itself."""
    return "://" in (directory or "")
