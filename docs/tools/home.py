"""A hook of MkDocs: the home page begins with the README, and the notebook is a page.

Both stand in the repository once, where GitHub shows them; the site takes them from there.
"""

import json
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "colab" / "thermo_ebm.ipynb"
PAGE_OF_NOTEBOOK = "notebook.md"
MARKER = "<!-- README -->"
END = "\n## Documentation\n"  # from here on the README leads to the pages, as the site's menu does
_LINK = re.compile(r"\[([^\]]*)\]\(([^)]+)\)")


def on_files(files: Files, config: MkDocsConfig, **_: Any) -> Files:
    """Adds the page of the notebook."""
    files.append(File.generated(config, PAGE_OF_NOTEBOOK, content=notebook_page()))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Puts the README where a page asks for it."""
    return markdown.replace(MARKER, readme()) if MARKER in markdown else markdown


def readme() -> str:
    """The README up to its list of pages; links to files outside docs/ keep only their text."""
    text = (ROOT / "README.md").read_text(encoding="utf-8").partition(END)[0]
    return _LINK.sub(_to_page, text)


def _to_page(link: re.Match[str]) -> str:
    text, target = link.groups()
    if target == NOTEBOOK.relative_to(ROOT).as_posix():
        return f"[{text}]({PAGE_OF_NOTEBOOK})"
    return f"[{text}]({target.removeprefix('docs/')})" if target.startswith("docs/") else text


def notebook_page() -> str:
    """The notebook's text and code, without outputs, which the file does not hold."""
    parts = []
    for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        parts.append(f"```python\n{source}\n```" if cell["cell_type"] == "code" else source)
    title, *others = parts
    where = (
        f"This is `{NOTEBOOK.relative_to(ROOT).as_posix()}` without its outputs: "
        "open the file in Jupyter or on Colab to run it.\n"
    )
    heading, _, text = title.partition("\n")
    return "\n\n".join([heading, where, text, *others])
