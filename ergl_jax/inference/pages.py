"""What the HTML pages share: each is one file that asks for no other, and runs its script only."""

import base64
import hashlib
import importlib.resources
import re
from collections.abc import Callable, Sequence
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

import ergl_jax
from ergl_jax.inference import narrative


def render(template: str, scripts: Sequence[str], **values: Any) -> str:
    """A page from a template that extends page.html, its scripts joined to one.

    `values` are the template's own; `data`, among them, is what the scripts read.
    """
    script = "\n".join(template_file(name) for name in scripts)
    content = (
        environment()
        .get_template(template)
        .render(
            style=Markup(template_file("page.css")),
            script=Markup(script),
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            version=ergl_jax.__version__,
            **values,
        )
    )
    return shown(content)


def environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(template_file),
        autoescape=True,  # names of files, events and scenes are anybody's
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Callable[..., Any]] = {
        "percent": narrative.percent,
        "plain": narrative.plain,
        "signed": narrative.signed,
        "fidelity": narrative.fidelity,
        "number": number,
        "share": narrative.share,
    }
    environment.filters |= filters
    return environment


def template_file(name: str) -> str:
    return importlib.resources.files(__package__).joinpath("templates", name).read_text("utf-8")


def number(value: float, form: str) -> str:
    """As `form` % value, with a minus sign instead of a hyphen."""
    return (form % value).replace("-", "−")


def rounded(matrix: np.ndarray) -> list[list[float]]:
    """A matrix for a page's data, at five digits: the page shows two or three."""
    return [[float(f"{x:.5g}") for x in row] for row in matrix]


def shown(text: str) -> str:
    """What a page shows of a text: without marks that turn around what follows them too."""
    return re.sub("[\u202a-\u202e\u2066-\u2069]", "\ufffd", printable(text))


def printable(text: str) -> str:
    """What UTF-8 and XML can hold: file names may be any bytes, and names in a bundle anything."""
    text = re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]", "\ufffd", text)
    return text.encode("utf-8", "replace").decode("utf-8")
