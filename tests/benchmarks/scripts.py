"""Loads the benchmarks, which are scripts, as modules."""

from __future__ import annotations

import importlib.util
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SCRIPTS = sorted(
    file.name
    for file in BENCHMARKS.iterdir()
    if file.is_file() and file.read_bytes().startswith(b"#!/usr/bin/env python")
)


def load(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return the script or module `name` of benchmarks/, for the length of a test."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    if name not in SCRIPTS:
        return importlib.import_module(name)
    loader = SourceFileLoader(name, str(BENCHMARKS / name))
    spec = importlib.util.spec_from_loader(name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)  # dataclasses look their module up
    loader.exec_module(module)
    return module
