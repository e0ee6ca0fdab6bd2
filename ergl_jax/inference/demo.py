"""A page in the browser: record or upload, and see scene, graph and timeline (Gradio)."""

import html
import os
from types import ModuleType

from ergl_jax.errors import InputError
from ergl_jax.inference import narrative, pictures
from ergl_jax.inference.classify import Model
from ergl_jax.inference.explain import Explainer
from ergl_jax.models.ergl import ERGL


def require_gradio() -> ModuleType:
    """Gradio, with its reports home turned off; InputError where it isn't installed."""
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    try:
        import gradio
    except ImportError as error:
        raise InputError(
            'the page needs Gradio: pip install "ergl_jax[demo]", or "pip install .[demo]" in a '
            "checkout"
        ) from error
    return gradio


def build(model: Model):
    """The page as `gradio.Blocks`; nothing is kept of what is uploaded."""
    gr = require_gradio()
    explainer = Explainer(model) if isinstance(model.module, ERGL) else None

    def answer(path: str | None):
        if path is None:
            raise gr.Error("record or upload something first", print_exception=False)
        try:
            if explainer is None:
                result = model.classify(path)
                return dict(result.scenes), str(result), None, None
            explanation = explainer(path)
        except InputError as error:
            # Gradio takes a message for HTML, and it holds names.
            raise gr.Error(html.escape(str(error)), print_exception=False) from error
        result = explanation.classification
        front_end = model.bundle.front_end
        return (
            dict(result.scenes),
            narrative.paragraph(explanation),
            pictures.graph(explanation),
            pictures.timeline(explanation, front_end),
        )

    with gr.Blocks(title="ergl_jax", analytics_enabled=False) as page:
        gr.Markdown("# What scene is this?\n\nRecord or upload a sound.")
        # As text: Markdown would fetch the pictures that a bundle's names may ask for.
        gr.Textbox(
            f"It was trained on {model.bundle.dataset} and knows {', '.join(model.bundle.scenes)}.",
            label="model",
            interactive=False,
        )
        with gr.Row():
            with gr.Column():
                sound = gr.Audio(sources=["upload", "microphone"], type="filepath", label="sound")
                button = gr.Button("Classify", variant="primary")
            scenes = gr.Label(num_top_classes=5, label="scene")
        why = gr.Textbox(label="why", lines=6)
        graph = gr.Plot(label="graph", visible=explainer is not None)
        timeline = gr.Plot(label="timeline", visible=explainer is not None)
        button.click(answer, sound, [scenes, why, graph, timeline], api_name="classify")
    return page


def launch(page, *, port: int | None, share: bool) -> None:
    """Serves the page until Ctrl-C, on this machine alone unless shared."""
    gr = require_gradio()
    # Fonts of the system: the default theme fetches its own from a server.
    theme = gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["monospace"])
    page.launch(server_port=port, share=share, theme=theme, footer_links=[])
