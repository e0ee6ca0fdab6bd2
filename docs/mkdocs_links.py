"""MkDocs hook: makes README.md the first page, and adds every file that a page links to.

The pages link as GitHub does, relative to their own place in the repository. In the site, docs/ is
the top, and files from elsewhere are under repository/: Markdown as pages, folders as a page that
lists them, other files unchanged.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File

LINK = re.compile(r"(\]\()([^)#:\s]+)([^):\s]*\))")
TOP = "README.md"
MORE = ("CHANGELOG.md", "CONTRIBUTING.md")


def on_files(files, config):
    """Adds README.md and what pages link to, and what those link to."""
    root = Path(config.config_file_path).parent
    todo = [TOP, *MORE, *(f"docs/{file.src_uri}" for file in files.documentation_pages())]
    done = set()
    while todo:
        path = todo.pop()
        if path in done:
            continue
        done.add(path)
        source = root / path
        if source.is_dir():
            names = sorted(x.name for x in source.iterdir() if x.is_file() and x.suffix != ".pyc")
            lines = [f"- [{name}]({posixpath.basename(path)}/{name})" for name in names]
            text = "\n".join([f"# {path}", "", *lines])
            files.append(File.generated(config, site_uri(root, path), content=text))
            todo += [f"{path}/{name}" for name in names]
            continue
        if not path.startswith("docs/"):
            files.append(File.generated(config, site_uri(root, path), abs_src_path=str(source)))
        if path.endswith(".md"):
            targets = (join(path, link[1]) for link in LINK.findall(source.read_text("utf-8")))
            todo += [target for target in targets if (root / target).exists()]
    return files


def on_page_markdown(markdown, page, config, files):
    """Links as they are in the site."""
    root, here = Path(config.config_file_path).parent, page.file.src_uri
    if here == "index.md":
        path = TOP
    elif here.startswith("repository/"):
        path = here.removeprefix("repository/")
    else:
        path = f"docs/{here}"
    if not (root / path).exists():  # the page of a folder
        return markdown

    def link(match):
        target = join(path, match[2])
        if not (root / target).exists():
            return match[0]  # MkDocs warns of it
        uri = posixpath.relpath(site_uri(root, target), posixpath.dirname(here) or ".")
        return f"{match[1]}{uri}{match[3]}"

    return LINK.sub(link, markdown)


def join(path, link):
    """The file of the repository that a page at `path` links to."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(path), link))


def site_uri(root, path):
    """Where a file of the repository is in the site."""
    if path == TOP:
        return "index.md"
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return f"repository/{path}" + (".md" if (root / path).is_dir() else "")
