"""Which code made a result."""

from __future__ import annotations

import subprocess
from pathlib import Path

import uno_jax


def about_code() -> dict[str, str]:
    """Returns the version of the package, and the commit if it runs from a checkout, with `+` after local changes."""
    return {"version": uno_jax.__version__, "commit": _commit()}


def _commit() -> str:
    root = Path(uno_jax.__file__).parents[1]
    if not (root / ".git").exists():
        return ""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        changed = "+" if git("status", "--porcelain", "--untracked-files=no") else ""
        return f"{git('rev-parse', '--short=12', 'HEAD')}{changed}"
    except OSError:  # git is not installed
        return ""
