"""Counts the words of README.md and of the pages in docs/.

python -m docs.tools.words

A word stands between spaces and has a letter or a digit. Displayed equations and the tables that
programs write (those of `GENERATED`; the two studies show the report's) are left out; all else
counts, the other tables and code included.
"""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GENERATED = (
    "configuration.md",
    "readings.md",
    "study/digits/README.md",
    "study/noise/index.md",
    "study/noise_cifar10/index.md",
    "study/published/README.md",
    "study/steps/index.md",
)


def count() -> dict[str, int]:
    """The number of words of each page, by its path in the repository."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return {path.relative_to(ROOT).as_posix(): _count_page(path) for path in pages}


def _count_page(path: Path) -> int:
    text = path.read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("$$")]
    if path.relative_to(ROOT).as_posix().removeprefix("docs/") in GENERATED:
        lines = [line for line in lines if not line.startswith("|")]
    return sum(any(map(str.isalnum, word)) for line in lines for word in line.split())


if __name__ == "__main__":
    counts = count()
    for name, number in counts.items():
        print(f"{number:6,}  {name}")
    print(f"{sum(counts.values()):6,}  in all")
