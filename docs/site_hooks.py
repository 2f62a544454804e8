"""What mkdocs does not do by itself for the site (mkdocs.yml): MkDocs calls these functions.

Pages keep the links that work in a checkout and on a forge. For that the site has the project's own paths
(`docs/…` beside `README.md`), and a page for every source file or folder that some page links to.
"""

from __future__ import annotations

import ast
import base64
import json
import re
from pathlib import Path
from typing import Any

import griffe
import mermaidx
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import get_plugin_logger
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
BESIDE = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
_LINK = re.compile(r"\]\(([^)\s#:]+)(?:#[^)]*)?\)")
_GROUP = re.compile(
    r"^(?P<indent> +)(?P<names>\*{0,2}\w+(?:, \*{0,2}\w+)+): (?P<text>.*\n?(?:(?P=indent) +.*\n?)*)",
    re.M,
)
_LANGUAGES = {".py": "python", ".yaml": "yaml", ".sh": "bash", ".sbatch": "bash", ".json": "json"}
_ELSEWHERE = re.compile(
    r"""<(?:script|img|iframe|link)\b[^>]*\b(?:src|href)=["']?((?:https?:)?//[^"'\s>]+)"""
)
_FENCE = "~" * 8  # longer than any in the files
_log = get_plugin_logger("site_hooks")
_FRONT = "---\nhide: [navigation, toc]\nsearch:\n  exclude: true\n---\n"


class GroupedArguments(griffe.Extension):
    """Takes apart what docstrings say of several arguments at once (`images, labels: …`).

    So each has its type on the page, and a name that the function has not is found.
    """

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called for every module, class and function."""
        if obj.docstring:
            obj.docstring.value = _GROUP.sub(_one_each, obj.docstring.value)


def _one_each(match: re.Match[str]) -> str:
    return "".join(
        f"{match['indent']}{name}: {match['text']}" for name in match["names"].split(", ")
    )


class _SourcePage(File):
    """A page that shows a file or folder of the project, under that one's path."""

    def is_documentation_page(self) -> bool:
        return True


def on_config(config: MkDocsConfig) -> None:
    """Adds the API reference to the navigation, and drawn diagrams to the Markdown."""
    fences = config.mdx_configs.setdefault("pymdownx.superfences", {})
    fences["custom_fences"] = [{"name": "mermaid", "class": "mermaid", "format": _diagram}]
    entries: list[Any] = [{"neas_tf": "api/neas_tf.md"}]
    entries += [{f"neas_tf.{name}": f"api/{name}.md"} for name in _packages()]
    assert config.nav is not None
    config.nav.append({"API": entries})


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Gives the pages their paths in the project, and adds what does not lie in docs/."""
    result = Files([])
    for file in files:
        if file.src_dir == config.docs_dir:
            file = File(
                f"docs/{file.src_uri}", str(ROOT), config.site_dir, config.use_directory_urls
            )
        result.append(file)
    for file in [file for file in result if file.src_uri.endswith(".ipynb")]:
        name = file.src_uri.removesuffix("ipynb") + "md"
        result.append(File.generated(config, name, content=_notebook(file.content_string)))
    for name in BESIDE:
        result.append(File(name, str(ROOT), config.site_dir, config.use_directory_urls))
    for page in list(result.documentation_pages()):
        folder = Path(page.abs_src_path or "").parent
        for target in _LINK.findall(page.content_string):
            _add_source((folder / target).resolve(), result, config)
    for name, text in _reference().items():
        result.append(File.generated(config, f"api/{name}.md", content=text))
    return result


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> None:
    """Holds that a reader's browser asks nobody but the site's own server."""
    for address in _ELSEWHERE.findall(output):
        _log.warning("%s loads %s, which is elsewhere", page.file.src_uri, address)


def _add_source(path: Path, files: Files, config: MkDocsConfig) -> None:
    """A page for a file or folder of the project, where there is none."""
    if not path.exists() or not path.is_relative_to(ROOT):
        return  # MkDocs warns of the link
    name = path.relative_to(ROOT).as_posix()
    if files.get_file_from_path(name) is not None:
        return
    if path.suffix == ".md":
        page = File.generated(
            config, name, abs_src_path=str(path), inclusion=InclusionLevel.NOT_IN_NAV
        )
        files.append(page)
        return
    if path.is_dir():
        inside = sorted(p for p in path.iterdir() if not p.name.startswith((".", "__")))
        for entry in inside:
            _add_source(entry, files, config)
        body = "\n".join(f"- [{p.name}]({path.name}/{p.name})" for p in inside)
    else:
        language = _LANGUAGES.get(path.suffix, "text")
        body = f'{_FENCE} {{.{language} linenums="1"}}\n{path.read_text("utf-8")}\n{_FENCE}'
    page = _SourcePage.generated(
        config,
        name,
        content=f"{_FRONT}# `{name}`\n\n{body}\n",
        inclusion=InclusionLevel.NOT_IN_NAV,
    )
    page.dest_uri = f"{name}.html"
    files.append(page)


def _packages() -> list[str]:
    """The packages, in the order of docs/architecture.md."""
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    return re.findall(r"^### `(\w+)`", page, re.MULTILINE)


def _reference() -> dict[str, str]:
    """Pages of the API reference, by name: what `neas_tf` itself has, and each package's modules."""
    package = ROOT / "neas_tf"
    tree = ast.parse((package / "__init__.py").read_text("utf-8"))
    (names,) = (
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    )
    face = (
        "# neas_tf\n\n`import neas_tf as neas` gives these, each imported when it is asked for.\n"
    )
    pages = {"neas_tf": face + "".join(f"\n::: neas_tf.{name}\n" for name in names)}
    for name in _packages():
        text = f"# neas_tf.{name}\n"
        for path in sorted((package / name).rglob("*.py")):
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            if (
                not path.stem.startswith("__")
                and "commands" not in path.relative_to(package / name).parts
            ):
                text += f"\n::: {module}\n"
        pages[name] = text
    return pages


def _notebook(content: str) -> str:
    """A notebook as a page: its text, and its code as blocks."""
    cells = [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(content)["cells"]]
    return "\n\n".join(
        f"```python\n{source}\n```" if kind == "code" else source for kind, source in cells
    )


def _diagram(source: str, *_: Any, **__: Any) -> str:
    """A Mermaid diagram as a picture, which readers need no script for."""
    svg = base64.b64encode(mermaidx.render(source).svg().encode()).decode()
    style = "background: white; padding: 1em; border-radius: .2em"
    return f'<img alt="diagram" style="{style}" src="data:image/svg+xml;base64,{svg}">'
