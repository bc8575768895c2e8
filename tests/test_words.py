"""The words of docs/glossary.md: none of the old ones comes back."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OLD_WORDS = (
    r"lanes?",
    r"chunks?",
    r"seal(s|ed|ing)?",
    r"feeders?",
    r"companions?",
    r"strengths?",
    r"lenient",
    r"workplaces?",
    r"poison(s|ed|ous)?",
    r"outbox",
    r"bequeath\w*",
    r"contests?",
    r"drill(s|ed)?",
    r"num_categories",
    r"made_for_inference",
    r"\w+_alike",
    r"threshold_area",
    r"stands",
    r"lies",
)
PATTERN = re.compile(rf"(?<![\w.])({'|'.join(OLD_WORDS)})(?!\w)", re.IGNORECASE)


def old_words(text: str) -> list[str]:
    """Old words of a text, with the number of their line."""
    return [
        f"{number}: {match.group()}"
        for number, line in enumerate(text.splitlines(), start=1)
        for match in PATTERN.finditer(line)
    ]


def texts() -> list[Path]:
    """Source and documents, apart from what has to name the old words."""
    naming = {
        ROOT / "docs" / "glossary.md",
        ROOT / "slams_ray" / "cli" / "old_names.py",
        ROOT / "tests" / "cli" / "test_old_names.py",
        Path(__file__),
    }
    found = [
        *(ROOT / "slams_ray").rglob("*.py"),
        *(ROOT / "jobs").rglob("*.py"),
        *(ROOT / "tests").rglob("*.py"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "cluster").rglob("*.md"),
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
    ]
    return sorted(set(found) - naming)


def test_no_text_uses_a_word_that_the_glossary_replaced() -> None:
    found = {str(p.relative_to(ROOT)): old_words(p.read_text("utf-8")) for p in texts()}
    assert {path: words for path, words in found.items() if words} == {}


@pytest.mark.parametrize(
    "line", ["its strength", "two lanes", "(chunk)", "where it stands", "num_categories = 3"]
)
def test_an_old_word_is_found(line: str) -> None:
    assert len(old_words(line)) == 1


@pytest.mark.parametrize("line", ["tensor.chunk(2)", "a restricted set", "relies on", "sealant"])
def test_other_words_are_left_alone(line: str) -> None:
    assert old_words(line) == []
