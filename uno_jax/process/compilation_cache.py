"""JAX's persistent compilation cache, for commands whose programs take long to compile; docs/install.md."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import jax

_DIRECTORY = "JAX_COMPILATION_CACHE_DIR"
_LEAST_SECONDS = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"


def cache_directory() -> Path | None:
    """The folder for compiled programs, which is made if needed; None if there is to be no such folder.

    The folder is `$JAX_COMPILATION_CACHE_DIR`, or by default `uno_jax/compilation` in `$XDG_CACHE_HOME` or `~/.cache`.
    An empty `JAX_COMPILATION_CACHE_DIR` or `JAX_ENABLE_COMPILATION_CACHE=false` turns the cache off. So does a folder
    that cannot be written, with one line on stderr.
    """
    given = os.environ.get(_DIRECTORY)
    if given == "" or _is_url(given) or not jax.config.values["jax_enable_compilation_cache"]:
        return None
    try:
        caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        directory = Path(given or Path(caches, "uno_jax", "compilation"))
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            return directory
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home directory
        advice = f"set {_DIRECTORY} to a folder that can be written, or to nothing to turn the cache off"
        print(f"warning: compiled programs are not kept: {error}; {advice}", file=sys.stderr)
        return None


def keep_compiled_programs() -> None:
    """Lets JAX load the programs that an earlier start compiled; call it before the first program is compiled."""
    directory = cache_directory()
    if not _is_url(os.environ.get(_DIRECTORY)):
        jax.config.update("jax_compilation_cache_dir", directory and str(directory))
    if _LEAST_SECONDS not in os.environ:
        # JAX keeps only what took a second to compile, and a command has dozens of programs that take less.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def _is_url(directory: str | None) -> bool:
    """A bucket, which JAX reads and writes itself."""
    return "://" in (directory or "")
