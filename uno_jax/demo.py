"""Serves a web page to generate, edit and ask: `python -m uno_jax.demo --checkpoint=DIR` (docs/sampling.md)."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args, no_type_check

import numpy as np
from absl import flags

from uno_jax.data.decoding import PictureError, decode_rgb, read_file
from uno_jax.inference.contexts import ContextPart
from uno_jax.inference.conversation import Conversation
from uno_jax.inference.generate import GeneratedImage, Generator, Request
from uno_jax.inference.options import define_model, define_thoughts, load_from_flags, thought_config
from uno_jax.inference.picture_settings import LARGEST_SEED, PictureSettings
from uno_jax.inference.thinking import split_thought
from uno_jax.process.addresses import bound_socket
from uno_jax.process.errors import exit_with_message, user_message
from uno_jax.process.flags import parse_flags, section_of
from uno_jax.process.start_up import set_up_jax
from uno_jax.sampling.guidance import Rescale
from uno_jax.sampling.text import TextConfig

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when gradio is imported
try:
    import gradio as gr
except ImportError:
    sys.exit("The web page needs gradio: pip install --no-deps -r requirements-demo.txt")

Result = TypeVar("Result")

MAX_UPLOAD = 2**26
"""Maximum size of an uploaded picture in bytes."""
MAX_PICTURES = 8
"""Maximum number of pictures to edit."""
MAX_TIMESTEPS = 500
_MAX_SCALE = 100.0

# Shared by all events, so requests of different kinds run one at a time, too.
ONE_AT_A_TIME: Mapping[str, Any] = {"concurrency_limit": 1, "concurrency_id": "model"}


def main(arguments: Sequence[str]) -> None:
    """Loads the model, and serves the page until interrupted."""
    options = flags.FlagValues()
    define_model(options)
    define_thoughts(options)
    place = section_of(options, "web page")
    flags.DEFINE_string("host", "127.0.0.1", "address to listen on; 0.0.0.0 accepts other machines", **place)
    flags.DEFINE_integer("port", 7860, "port to listen on", 1, 65_535, **place)
    parse_flags(options, arguments, command="demo", about=__doc__, required=("checkpoint",))
    set_up_jax()
    with exit_with_message():
        bound_socket(options.host, options.port).close()
        generator = load_from_flags(options, thought_config(options))
        serve(make_page(generator), server_name=options.host, server_port=options.port)


def serve(page: gr.Blocks, **options: Any) -> Any:
    """Serves the page; the options are those of gradio's `launch`."""
    return page.launch(max_file_size=MAX_UPLOAD, theme=_theme(), footer_links=[], **options)


def make_page(generator: Generator) -> gr.Blocks:
    """Builds the page, which `launch` serves. Requests run one at a time, in order. Files are removed after an hour."""
    model = generator.reader.model
    page: gr.Blocks
    with gr.Blocks(title="uno_jax", analytics_enabled=False, delete_cache=(600, 3600)) as page:
        gr.Markdown(f"# uno_jax\n`{model.name}`")
        with gr.Tab("Draw", id="draw"):
            _picture_tab(generator, edit=False)
        with gr.Tab("Edit", id="edit"):
            _picture_tab(generator, edit=True)
        with gr.Tab("Ask", id="ask"):
            _question_tab(generator)
    return page


def _picture_tab(generator: Generator, *, edit: bool) -> None:
    name = "edit" if edit else "draw"
    with gr.Row():
        with gr.Column():
            pictures = gr.Gallery(
                label="Pictures to edit",
                type="filepath",
                file_types=["image"],
                visible=edit,
                elem_id=f"{name}-pictures",
            )
            prompt = gr.Textbox(label="What to change" if edit else "Prompt", elem_id=f"{name}-prompt")
            count = gr.Slider(1, 16, value=1, step=1, label="Number of pictures, with consecutive seeds")
            button = gr.Button("Edit" if edit else "Draw", variant="primary", elem_id=f"{name}-go")
            controls = _setting_controls(generator)
        with gr.Column():
            drawn = gr.Gallery(label="Pictures", object_fit="contain", format="png", elem_id=f"{name}-drawn")
            thoughts = gr.Textbox(label="Thoughts", lines=4, visible=False)

    @no_type_check  # gradio streams from a generator function, and a function that is checked at run time is none
    def make(
        pictures: Sequence[tuple[Any, str | None]] | None,
        prompt: str,
        count: float,
        *values: Any,
        progress: Any = gr.Progress(),  # noqa: B008 - how gradio finds it
    ) -> Iterator[tuple[list[tuple[Any, str]], Any]]:
        if edit and not pictures:
            raise _refusal("Give at least one picture to edit.")
        if len(pictures or []) > MAX_PICTURES:
            raise _refusal(f"Give at most {MAX_PICTURES} pictures.")
        sources = [_uploaded(picture) for picture, _ in pictures or []]
        if not prompt.strip():
            raise _refusal("Describe the change." if edit else "Enter a prompt.")
        settings = [_settings(dict(zip(controls, values, strict=True)), number) for number in range(int(count))]
        requests = [Request((*sources, prompt), own) for own in settings]
        made: dict[int, GeneratedImage] = {}
        progress((0, len(requests)), unit="pictures")
        for number, generated in _with_messages(_generated(generator, requests)):
            made[number] = generated
            progress((len(made), len(requests)), unit="pictures")
            shown = [(made[i].image, f"seed {settings[i].seed}") for i in sorted(made)]
            thought = "\n\n".join(made[i].thought for i in sorted(made) if made[i].thought)
            yield shown, gr.update(value=thought, visible=bool(thought))

    gr.on(
        [button.click, prompt.submit],
        make,
        [pictures, prompt, count, *controls.values()],
        [drawn, thoughts],
        api_name=name,
        **ONE_AT_A_TIME,
    )


def _question_tab(generator: Generator) -> None:
    text = TextConfig()
    with gr.Row():
        with gr.Column():
            picture = gr.Image(label="Picture (optional)", type="filepath", elem_id="ask-picture")
            # gradio would open the file, with errors of its own. A subclass would make it write a stub file here.
            setattr(picture, "preprocess", lambda payload: payload and payload.path)  # noqa: B010
            question = gr.Textbox(label="Question (empty: a caption)", elem_id="ask-question")
            button = gr.Button("Ask", variant="primary", elem_id="ask-go")
            with gr.Accordion("Settings", open=False):
                think = gr.Checkbox(False, label="Think first")
                longest = generator.reader.model.config.decoder.context_length
                length = gr.Number(
                    text.max_length, precision=0, minimum=2, maximum=longest, label="Maximum tokens of an answer"
                )
                temperature = gr.Number(
                    text.temperature, minimum=0, maximum=_MAX_SCALE, label="Temperature (0: greedy decoding)"
                )
                top_p = gr.Slider(0.01, 1, value=text.top_p, label="Top p")
                seed = gr.Number(
                    0, precision=0, minimum=0, maximum=LARGEST_SEED, label="Seed (for a temperature above 0)"
                )
                stop = gr.Textbox("", lines=2, label="Further end tokens, one per line")
        with gr.Column():
            answer = gr.Textbox(label="Answer", lines=6, elem_id="ask-answer")
            thought = gr.Textbox(label="Thought", lines=4, visible=False)

    @no_type_check
    def ask(
        picture: Any,
        question: str,
        think: bool,
        length: int | None,
        temperature: float | None,
        top_p: float,
        seed: int | None,
        stop: str,
    ) -> Iterator[tuple[str, Any]]:
        context: list[ContextPart] = [_uploaded(picture)] if picture else []
        context += [question.strip()] if question.strip() else []
        if not context:
            raise _refusal("Give a picture, a question, or both.")
        given = _given({"max_length": length, "temperature": temperature, "top_p": top_p})
        text = _checked(lambda: TextConfig(**given))
        ends = [line for line in stop.split("\n") if line]
        for written in _with_messages(_answer(generator, context, text, ends, think=think, seed=seed or 0)):
            before, after = split_thought(written)
            yield after, gr.update(value=before, visible=bool(before))

    gr.on(
        [button.click, question.submit],
        ask,
        [picture, question, think, length, temperature, top_p, seed, stop],
        [answer, thought],
        api_name="ask",
        **ONE_AT_A_TIME,
    )


def _answer(
    generator: Generator,
    context: Sequence[ContextPart],
    text: TextConfig,
    stop: Sequence[str],
    *,
    think: bool,
    seed: int,
) -> Iterator[str]:
    """Yields the text so far, every few tokens."""
    conversation, written = Conversation(generator, think, tuple(context)), ""
    for piece in conversation.answer(text, seed, generator.stop_tokens(stop)):
        written += piece.text
        yield written


def _generated(generator: Generator, requests: Sequence[Request]) -> Iterator[tuple[int, GeneratedImage]]:
    """Checks the texts of all requests, and generates their pictures."""
    for request in requests:
        generator.check_texts(request)
    yield from generator.generate(requests)


def _setting_controls(generator: Generator) -> dict[str, Any]:
    """Builds a control for every field of PictureSettings, by name; `interval` has two."""
    default, shift = PictureSettings(), generator.reader.model.time_shift
    with gr.Accordion("Settings", open=False):
        with gr.Row():
            seed = gr.Number(default.seed, precision=0, minimum=0, maximum=LARGEST_SEED, label="Seed")
            timesteps = gr.Number(
                default.timesteps, precision=0, minimum=2, maximum=MAX_TIMESTEPS, label="Times (steps + 1)"
            )
        with gr.Row():
            size = gr.Textbox(default.size, label="Size, such as 96x64", placeholder="by the aspect")
            aspect = gr.Textbox(
                default.aspect, label="Aspect, such as 4:3", placeholder="that of the last picture, or square"
            )
        negative = gr.Textbox(default.negative, label="Negative prompt")
        think = gr.Checkbox(default.think, label="Think first")
        with gr.Row():
            bounds: Mapping[str, Any] = {"minimum": 0, "maximum": _MAX_SCALE, "step": 0.1}
            text_scale = gr.Number(default.text_scale, **bounds, label="Guidance by text")
            image_scale = gr.Number(default.image_scale, **bounds, label="Guidance by pictures")
        with gr.Row():
            low = gr.Slider(0, 1, value=default.interval[0], step=0.01, label="Guidance from time")
            high = gr.Slider(0, 1, value=default.interval[1], step=0.01, label="Guidance up to time")
        with gr.Row():
            rescale = gr.Dropdown(list(get_args(Rescale)), value=default.rescale, label="Rescaling")
            rescale_min = gr.Slider(0, 1, value=default.rescale_min, label="Minimum factor of rescaling")
        time_shift = gr.Number(
            None, minimum=0.01, maximum=_MAX_SCALE, label=f"Time shift (empty: {shift:g}, the checkpoint's)"
        )
        with gr.Row():
            solver_order = gr.Slider(1, 2, value=default.solver_order, step=1, label="Order of the solver")
            refresh_every = gr.Number(
                default.refresh_every,
                precision=0,
                minimum=1,
                maximum=MAX_TIMESTEPS,
                label="Run the layers every N steps",
            )
            feature_order = gr.Slider(0, 2, value=default.feature_order, step=1, label="Degree of extrapolation")
    return {
        "seed": seed,
        "timesteps": timesteps,
        "size": size,
        "aspect": aspect,
        "negative": negative,
        "think": think,
        "text_scale": text_scale,
        "image_scale": image_scale,
        "low": low,
        "high": high,
        "rescale": rescale,
        "rescale_min": rescale_min,
        "time_shift": time_shift,
        "solver_order": solver_order,
        "refresh_every": refresh_every,
        "feature_order": feature_order,
    }


def _settings(values: dict[str, Any], number: int) -> PictureSettings:
    """Returns the settings of the picture with a number, counted from 0."""
    interval = (values.pop("low"), values.pop("high"))
    changed = _given({**values, "seed": (values["seed"] or 0) + number, "interval": interval})
    return _checked(lambda: PictureSettings(**changed))


def _given(values: dict[str, Any]) -> dict[str, Any]:
    """Removes empty fields, which take their defaults."""
    return {name: value for name, value in values.items() if value is not None}


def _checked(make: Callable[[], Result]) -> Result:
    """Calls `make`, and shows its user errors on the page."""
    with _messages():
        return make()


def _with_messages(results: Iterator[Any]) -> Iterator[Any]:
    """Passes results on, and shows user errors on the page."""
    with _messages():
        yield from results


@contextlib.contextmanager
def _messages() -> Iterator[None]:
    """Shows user errors on the page. Errors of the program stay as they are."""
    try:
        yield
    except Exception as error:
        message = user_message(error)
        if message is None:
            raise
        raise _refusal(message.partition(": ")[2]) from error


def _uploaded(file: str) -> np.ndarray:
    """Reads an uploaded picture with our own limits, and errors that do not tell where it is stored."""
    name = Path(file).name
    with _messages():
        try:
            encoded = read_file(Path(file))
        except PictureError as error:
            raise error.of(name) from error
        return decode_rgb(encoded, name)


def _refusal(message: str) -> gr.Error:
    return gr.Error(message, print_exception=False)


def _theme() -> gr.themes.Base:
    """Returns a theme with system fonts, so that the page contacts no other server."""
    return gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])


if __name__ == "__main__":
    main(sys.argv[1:])
