"""A Gradio page: record or upload a sound and see its scene, graph and timeline."""

import html
from typing import Any

import gradio as gr

from ergl_jax.errors import InputError
from ergl_jax.inference import narrative, pictures
from ergl_jax.inference.classify import Model
from ergl_jax.inference.explain import Explainer
from ergl_jax.models.ergl import ERGL


def build(model: Model):
    """The page as `gradio.Blocks`. Models without a graph are not explained.

    Raises InputError for a model without scenes.
    """
    model.check_scenes()
    explainer = Explainer(model) if isinstance(model.module, ERGL) else None
    bundle = model.bundle

    def answer(path: str | None):
        if path is None:
            raise gr.Error("record or upload something first", print_exception=False)
        try:
            if explainer is None:
                result: Any = model.classify(path)
                return dict(result.scenes), str(result), None, None
            explanation = explainer(path)
        except InputError as error:
            # Escaped: Gradio renders messages as HTML, and this one contains names.
            raise gr.Error(html.escape(str(error)), print_exception=False) from error
        return (
            dict(explanation.classification.scenes),
            narrative.paragraph(explanation),
            pictures.graph(explanation),
            pictures.timeline(explanation, bundle.front_end),
        )

    with gr.Blocks(title="ergl_jax", analytics_enabled=False) as page:
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
        graph = gr.Plot(label="graph", visible=explainer is not None)
        timeline = gr.Plot(label="timeline", visible=explainer is not None)
        button.click(answer, sound, [scenes, why, graph, timeline], api_name="classify")
    return page


def launch(page, *, port: int | None, share: bool) -> None:
    """Serves the page until Ctrl-C, on this machine only unless shared."""
    # System fonts: the default theme loads its own from a server.
    theme = gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["monospace"])
    page.launch(server_port=port, share=share, theme=theme, footer_links=[])
