"""The mutation check keeps up with the code that it changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mutations.protection import Protection
from tests.mutations.protections import PROTECTIONS

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("protection", PROTECTIONS, ids=lambda p: p.name)
def test_the_code_of_a_protection_is_where_it_is_said_to_be_and_its_tests_exist(protection: Protection) -> None:
    source = (ROOT / "src" / "bertpar" / protection.file).read_text(encoding="utf-8")
    assert source.count(protection.code) == 1
    for test in protection.tests:
        file, _, name = test.partition("::")
        assert f"def {name.partition('[')[0]}" in (ROOT / "tests" / file).read_text(encoding="utf-8")


def test_names_are_unique() -> None:
    assert len({protection.name for protection in PROTECTIONS}) == len(PROTECTIONS)
