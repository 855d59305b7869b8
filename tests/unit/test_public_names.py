"""`import bertpar`: few names, all of them there, and nothing is imported for them before they are used."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import bertpar


def declared() -> set[str]:
    """Return the names that type checkers see."""
    tree = ast.parse(Path(bertpar.__file__).read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    return {alias.name for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}


def test_the_public_names_are_sorted_and_complete() -> None:
    assert bertpar.__all__ == sorted(bertpar.__all__)
    assert set(bertpar.__all__) == declared()
    assert set(bertpar.__all__) <= set(dir(bertpar))
    for name in bertpar.__all__:
        assert getattr(bertpar, name).__name__ == name


def test_a_name_that_is_not_public_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="module 'bertpar' has no attribute 'swep'"):
        bertpar.swep  # noqa: B018


def test_importing_bertpar_imports_nothing_of_others() -> None:
    code = "import sys; before = set(sys.modules); import bertpar; print(*(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {name.partition(".")[0] for name in done.stdout.split()} <= {*sys.stdlib_module_names, "bertpar"}
