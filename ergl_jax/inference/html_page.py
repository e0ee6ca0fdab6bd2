"""Renders self-contained HTML pages: no requests, and no script but the page's own."""

import base64
import hashlib
import io
import re
from collections.abc import Sequence
from typing import Any

import jinja2
import numpy as np
import soundfile
from markupsafe import Markup

import ergl_jax
from ergl_jax.inference import narrative

LOADER = jinja2.PackageLoader(__package__)


def render(template: str, scripts: Sequence[str], **values: Any) -> str:
    """A page from a template that extends page.html, with its scripts joined into one.

    The scripts read `data`, one of `values`; the others are the template's own.
    """
    environment = jinja2.Environment(
        loader=LOADER,
        autoescape=True,  # names of files, events and scenes are not trusted
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False}  # `visible` reads it too
    for function in (narrative.percent, narrative.plain, narrative.number):
        environment.filters[function.__name__] = function

    def source(name: str) -> str:
        return LOADER.get_source(environment, name)[0]

    script = "\n".join(map(source, scripts))
    page = environment.get_template(template).render(
        style=Markup(source("page.css")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        version=ergl_jax.__version__,
        **values,
    )
    return visible(page)


def audio(waveform: np.ndarray, sample_rate: int, form: str = "WAV") -> str:
    """A waveform (L,) as a data URI: "WAV" of 16 bits, or "MP3", which is a tenth as long."""
    buffer = io.BytesIO()
    subtype = {"WAV": "PCM_16", "MP3": "MPEG_LAYER_III"}[form]
    soundfile.write(buffer, np.clip(waveform, -1, 1), sample_rate, subtype, format=form)
    kind = {"WAV": "audio/wav", "MP3": "audio/mpeg"}[form]
    return f"data:{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def visible(text: str) -> str:
    """Printable text without the marks that reverse the direction of what follows."""
    return re.sub("[\u202a-\u202e\u2066-\u2069]", "\ufffd", printable(text))


def printable(text: str) -> str:
    """Replaces what UTF-8 or XML can't hold: names of files, events and scenes may be any bytes."""
    text = re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]", "\ufffd", text)
    return text.encode("utf-8", "replace").decode("utf-8")
