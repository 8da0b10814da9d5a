"""A wrong line: what to put in place of a text of src, and the tests that must then fail."""

from dataclasses import dataclass


@dataclass(frozen=True)
class WrongLine:
    name: str
    right: str
    wrong: str
    tests: tuple[str, ...]
    why: str
