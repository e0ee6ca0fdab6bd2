"""A Gradio page: record or upload a sound and see its scene, timeline and graph."""

import base64
import html
from typing import Any

import gradio as gr

from ergl_jax.bundle import Bundle
from ergl_jax.errors import InputError
from ergl_jax.inference import explanation_page, narrative, pictures
from ergl_jax.inference.classify import Model
from ergl_jax.inference.explain import GRAPHS, Explainer
from ergl_jax.inference.explanation import Explanation


def build(model: Model):
    """The page as `gradio.Blocks`. Models without a graph are not explained.

    Raises InputError for a model without scenes.
    """
    model.check_scenes()
    explainer = Explainer(model) if isinstance(model.module, GRAPHS) else None
    bundle = model.bundle

    def shown_answer(path: str | None):
        if path is None:
            raise gr.Error("record or upload something first", print_exception=False)
        try:
            return answer(path, model, explainer)
        except InputError as error:
            # Escaped: Gradio renders messages as HTML, and this one contains names.
            raise gr.Error(html.escape(str(error)), print_exception=False) from error

    every, age = 600, 3600  # seconds, for uploads
    with gr.Blocks(title="ergl_jax", analytics_enabled=False, delete_cache=(every, age)) as page:
        gr.Markdown("# What scene is this?\n\nRecord or upload a sound.")
        # Not Markdown, which would load images that names in the bundle may refer to.
        about = f"Trained on {bundle.dataset}. Scenes: {', '.join(bundle.scenes)}."
        gr.Textbox(about, label="model", interactive=False)
        with gr.Row():
            with gr.Column():
                sound = gr.Audio(sources=["upload", "microphone"], type="filepath", label="sound")
                button = gr.Button("Classify", variant="primary")
            scenes = gr.Label(num_top_classes=5, label="scene")
        why = gr.Textbox(label="why", lines=6)
        shown = gr.HTML(visible=explainer is not None)
        button.click(shown_answer, sound, [scenes, why, shown], api_name="classify")
    return page


def answer(
    path: str, model: Model, explainer: Explainer | None
) -> tuple[dict[str, float], str, str]:
    """What the page shows of a recording: its scenes, why in words, pictures as HTML."""
    if explainer is None:
        result: Any = model.classify(path)
        return dict(result.scenes), str(result), ""
    explanation = explainer(path)
    why = narrative.paragraph(explanation)
    if unknown := narrative.unknown(explanation):
        why = f"{unknown}\n{why}"
    return dict(explanation.classification.scenes), why, _pictures(explanation, model.bundle)


def _pictures(explanation: Explanation, bundle: Bundle) -> str:
    """Timeline and graph in the page's own text colour, and a link to the whole page."""
    figures = explanation_page.draw(explanation, bundle)
    drawn = [
        f'<div role="img" aria-label="{name}" style="flex: 1 1 20rem; max-width: 31rem">'
        f"{pictures.inline_svg(figures[name], name)}</div>"
        for name in ("timeline", "graph")
    ]
    # The page is inside the link: no file of it is left on this machine.
    page = explanation_page.render(explanation, figures, bundle).encode()
    link = (
        f'<a download="{explanation_page.PAGE}" href="data:text/html;base64,'
        f'{base64.b64encode(page).decode()}">Download the whole page</a>: how far the explanation '
        "can be trusted, every relation, and the sound"
    )
    row = f'<div style="display: flex; flex-wrap: wrap; gap: 2rem">{"".join(drawn)}</div>'
    return f"<p>{link}</p>{row}"


def launch(page, *, port: int | None, share: bool) -> None:
    """Serves the page until Ctrl-C, on this machine only unless shared."""
    # System fonts: the default theme loads its own from a server.
    theme = gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["monospace"])
    page.launch(server_port=port, share=share, theme=theme, footer_links=[])
