"""Texts for a judge of RISEBench, in words of this project. What each asks for, and its name, are the scorer's."""

from __future__ import annotations

from collections.abc import Mapping

_KEPT = """5: nothing else is different
4: one small thing is different
3: one thing is clearly different
2: several things are clearly different
1: hardly anything is as it was"""
_RIGHT = """5: the image shows all of the reference, in every detail and degree
4: all but a small detail of it
3: a part of it, or with a clear fault
2: little of it
1: nothing of it"""
_MADE = """5: sharp and coherent, nothing in it is distorted or impossible
4: a small fault can be found by looking closely
3: there are clear faults, but the subject is well recognisable
2: large parts are blurred, distorted or impossible
1: it is broken, or nothing can be recognised"""


def _text(task: str, given: str, scale: str) -> str:
    answer = (
        "Explain your decision in a few sentences. Then end with this line:\nFinal Score: a whole number of the scale"
    )
    return f"{task}\n\n{given}Scale:\n{scale}\n\n{answer}"


_INSTRUCTION = "Instruction: <prompt>\n\n"
_WITH_REFERENCE = "Instruction: <prompt>\nReference: <reference>\n\n"
_CONSISTENCY = (
    "The first image is an original, the second one what an editor has made of it by an instruction. Rate how well the "
    "edit has kept everything that the instruction does not change: persons, things, colours, background and layout. "
    "What the instruction asks for, and what follows from it, is no difference."
)
_ALIKE = (
    "Two images belong to a puzzle, and the second one is by an editor. Whether it solves the puzzle does not matter "
    "here. Decide whether its looks are those of the first image: colours, lines, lettering, background and "
    "arrangement. The marks, pieces or lines that the solution adds, and a slightly other tone, are no difference."
)
_SAME = "1: its looks are those of the first image\n0: they are not"
_SOLVED = "1: it is right, and there is nothing more in it\n0: it is not, or it gives several solutions"

TEXTS: Mapping[str, str] = {
    "prompt_consist": _text(_CONSISTENCY, _INSTRUCTION, _KEPT),
    "prompt_reasoning": _text(
        "You see what an editor has made of an image by an instruction, and read what the result must show. Rate how "
        "far the image shows it.",
        _WITH_REFERENCE,
        _RIGHT,
    ),
    "prompt_reasoning_w_input": _text(
        "The first image is an original, the second one what an editor has made of it by an instruction. You also read "
        "what the result must show. Rate how far the second image shows it, which started from the first one.",
        _WITH_REFERENCE,
        _RIGHT,
    ),
    "prompt_generation": _text(
        "You see an image by an image generator. Rate how well it is made, and how plausible it is in the real world: "
        "sharpness, natural structure and light, and nothing that is physically impossible.",
        "",
        _MADE,
    ),
    "prompt_spatial_cons": _text(_CONSISTENCY, _INSTRUCTION, _KEPT),
    "prompt_spatial_ref": _text(
        "You see what an editor has made of an image by an instruction about space: parts put together, things "
        "arranged, or another viewpoint. You also read what the result must show. Rate how far the image shows it.",
        _WITH_REFERENCE,
        _RIGHT,
    ),
    "prompt_spatial_ref_w_input": _text(
        "The first image is an original, the second one what an editor has made of it by an instruction about space. "
        "You also read what the result must show. Rate how far the second image shows it.",
        _WITH_REFERENCE,
        _RIGHT,
    ),
    "prompt_spatial_ref_img": _text(
        "The first image is the right result of an instruction about space, the second one the result of an editor. "
        "Rate how far the second image shows what the first one does: places, directions, shapes and what hides what.",
        _INSTRUCTION,
        _RIGHT,
    ),
    "prompt_spatial_qual": _text(
        "You see an image by an image generator. Rate how clear and how free of distortions it is, and whether all in "
        "it is physically possible.",
        "",
        _MADE,
    ),
    "prompt_logical_cons": _text(_ALIKE, _INSTRUCTION, _SAME),
    "prompt_logical_cons_ans": _text(_ALIKE, "Instruction: <prompt>\nRight answer: <reference>\n\n", _SAME),
    "prompt_logical_txt": _text(
        "You see an image in which an editor was to solve a puzzle. Decide whether it shows the right answer.",
        "Puzzle: <prompt>\nRight answer: <reference>\n\n",
        _SOLVED,
    ),
    "prompt_logical_img": _text(
        "The first image shows the right solution of a puzzle, the second one that of an editor. Decide whether both "
        "are the same solution: the same marks, pieces or shapes, with the same places, colours and directions.",
        "Puzzle: <prompt>\n\n",
        _SOLVED,
    ),
    "prompt_logical_img_wo_q": _text(
        "The first image shows the right solution of a puzzle, the second one that of an editor. Decide whether both "
        "show the same, apart from size and background. If the second one repeats the puzzle without its solution, or "
        "shows more than the first one, the answer is 0.",
        "",
        _SOLVED,
    ),
}
