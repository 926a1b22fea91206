"""MkDocs hooks: linked files and notebooks of the repository as pages, dark pictures, MathML, wide tables as cards."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import nbformat
from bs4 import BeautifulSoup, Tag
from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from nbconvert import MarkdownExporter

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"(?<=\]\()(?!\w+:|#|/)([^)\s#]+)(?=[)#])")
CODE = {".py": "python", ".toml": "toml", ".cff": "yaml", ".yml": "yaml", "": "makefile"}
IMAGE = re.compile(r'<img alt="([^"]*)" src="([^"]+)\.png"[^>]*>')
WIDE = 4  # columns that a phone cannot show side by side
NO_CONTENTS = "hide: [toc]"  # of a page: room for code as wide as examples/ruff.toml allows
EQUATION = re.compile(r'<(span|div) class="arithmatex">(.*?)</\1>', re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for every file of the repository that a page links to, and that pages added here link to."""
    waiting = [(f"docs/{file.src_uri}", file.content_string) for file in files.documentation_pages()]
    waiting += [(f"docs/{path}", "") for path in re.findall(r"(?:gallery|repository)/[\w./-]+", str(config.nav))]
    for page, text in waiting:
        generated = source_of(page.removeprefix("docs/"))
        targets = [generated] if generated else [path for path, _ in links(page, text)]
        for path in targets:
            if path.startswith("docs/") or files.get_file_from_path(uri := page_of(path)):
                continue
            if (ROOT / path).is_dir():
                raise PluginError(f"{page} links to the folder {path}; link to a file")
            for file in generate(path, uri, config):
                files.append(file)
            if path.endswith(".md"):
                waiting.append((path, (ROOT / path).read_text(encoding="utf-8")))
    return files


def links(page: str, text: str) -> Iterator[tuple[str, str]]:
    """Yield the relative links of a page, as paths from the root and as they are written."""
    for link in LINK.findall(text):
        path = posixpath.normpath(posixpath.join(posixpath.dirname(page), link))
        if (ROOT / path).exists():
            yield path, link


def page_of(path: str) -> str:
    """Return where the site has a file of the repository: examples in `gallery/`, others in `repository/`."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    place = f"gallery/{path.removeprefix('examples/')}" if path.startswith("examples/") else f"repository/{path}"
    if path.endswith((".md", ".json")):
        return place
    return f"{place.removesuffix('.ipynb')}.md"


def source_of(uri: str) -> str | None:
    """Return the file of the repository that a generated page shows; None for pages of docs/."""
    if not uri.startswith(("gallery/", "repository/")):
        return None
    folder, _, path = uri.partition("/")
    path = f"examples/{path}" if folder == "gallery" else path
    names = (path, path.removesuffix(".md"), path.removesuffix(".md") + ".ipynb")
    return next((name for name in names if (ROOT / name).is_file()), None)


def generate(path: str, uri: str, config: MkDocsConfig) -> Iterator[File]:
    """Yield the files of the site for a file of the repository."""
    file = ROOT / path
    if path.endswith(".json"):
        yield File.generated(config, uri, abs_src_path=str(file))
    elif path.endswith(".ipynb"):
        text, resources = MarkdownExporter().from_notebook_node(nbformat.read(file, as_version=4))
        folder = posixpath.dirname(uri)
        for name, content in resources["outputs"].items():
            text = text.replace(f"({name})", f"({file.stem}/{name})")
            yield File.generated(config, f"{folder}/{file.stem}/{name}", content=content)
        yield File.generated(config, uri, content=f"---\n{NO_CONTENTS}\n---\n\n{text}")
    elif path.endswith(".md"):
        yield File.generated(config, uri, content=file.read_text(encoding="utf-8"))
    else:
        meta = "search: { exclude: true }" if uri.startswith("repository/") else NO_CONTENTS
        code = file.read_text(encoding="utf-8").rstrip()
        text = f"---\n{meta}\n---\n\n# {path}\n\n````{CODE[file.suffix]}\n{code}\n````\n"
        yield File.generated(config, uri, content=text)


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links to files of the repository to their pages."""
    uri = page.file.src_uri
    here = source_of(uri) or f"docs/{uri}"
    found = {link: path for path, link in links(here, markdown)}

    def replace(match: re.Match[str]) -> str:
        path = found.get(match[1])
        return posixpath.relpath(page_of(path), posixpath.dirname(uri)) if path else match[1]

    return LINK.sub(replace, markdown)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Show NAME-dark.png in dark mode where there is one, and equations as MathML."""

    def both(match: re.Match[str]) -> str:
        alt, path = match.groups()
        dark = posixpath.normpath(posixpath.join(posixpath.dirname(page.url), f"{path}-dark.png"))
        if files.get_file_from_path(dark) is None:
            return match[0]
        return "".join(
            f'<img alt="{alt}" src="{path}{suffix}.png#only-{scheme}" loading="lazy">'
            for suffix, scheme in (("", "light"), ("-dark", "dark"))
        )

    return with_cards(EQUATION.sub(lambda match: mathml(unescape(match[2])), IMAGE.sub(both, html)))


def with_cards(html: str) -> str:
    """Name the column in each cell of wide tables: on a phone their rows become cards (site.css)."""
    if "<table>" not in html:
        return html
    page = BeautifulSoup(html, "html.parser")
    for table in page.find_all("table", class_=False):
        columns = [cell.get_text() for cell in table.thead.find_all("th")] if table.thead else []
        if len(columns) < WIDE:
            continue
        table["class"] = "cards"
        for name in table.select("td:first-child code"):
            break_after_underscores(name, page)
        for row in table.tbody.find_all("tr"):
            for cell, column in zip(row.find_all("td"), columns, strict=True):
                cell["data-column"] = column
                content = page.new_tag("span")
                content.extend(list(cell.contents))
                cell.append(content)
    return str(page)


def break_after_underscores(name: Tag, page: BeautifulSoup) -> None:
    """Let a long name continue on the next line after an underscore."""
    first, *others = name.get_text().split("_")
    name.clear()
    name.append(first)
    for part in others:
        name.extend(["_", page.new_tag("wbr"), part])


def mathml(latex: str) -> str:
    r"""Convert an equation in `\(` and `\)`, or in `\[` and `\]` if it stands alone."""
    return convert(latex.strip()[2:-2], display="block" if latex.strip().startswith(r"\[") else "inline")
