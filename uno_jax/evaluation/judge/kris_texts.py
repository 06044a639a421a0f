"""Texts for a judge of KRIS-Bench, in words of this project. What each asks for, and its name, are the scorer's."""

from __future__ import annotations

from collections.abc import Mapping

_CHANGES = """5: nothing else is different
4: one small thing is different
3: one thing is clearly different
2: several things are clearly different
1: hardly anything is as it was"""
_DONE = """5: all that was asked for is there, exactly
4: it is there, with one small fault
3: half of it is there, or it is there with a clear fault
2: little of it is there
1: it is not there, or something else was done"""


def _text(task: str, given: str, scale: str, name: str) -> str:
    answer = (
        f'Explain your decision in a few sentences. Then end with JSON and nothing else: {{"{name}": a whole number}}'
    )
    return f"{task}\n\n{given}Scale of {name}:\n{scale}\n\n{answer}"


_INSTRUCTION = "Instruction: <prompt>\n\n"

TEXTS: Mapping[str, str] = {
    "prompt_consist": _text(
        "You see an original image, and what an editor has made of it by an instruction. Rate how well the edit has "
        "kept everything that the instruction does not touch: who and what is there, shapes, colours, style, "
        "background and layout. What the instruction asks for, and what follows from it, is no difference.",
        _INSTRUCTION,
        _CHANGES,
        "consistency_score",
    ),
    "prompt_instruction_following": _text(
        "You see an original image, and what an editor has made of it by an instruction. Say first what the "
        "instruction asks for, then what has changed. Rate how far the change is the one that was asked for.",
        _INSTRUCTION,
        _DONE,
        "instruction_score",
    ),
    "prompt_dual_evaluation": (
        "You see an original image, and what an editor has made of it by an instruction that needs knowledge of the "
        "world. Give two independent ratings. instruction_score says how far the edit does what the words of the "
        "instruction ask for. knowledge_score says how far the result is what really would happen or be right, for "
        "which the explanation is the reference.\n\n"
        "Instruction: <prompt>\nExplanation: <explanation>\n\n"
        f"Scale of instruction_score:\n{_DONE}\n\n"
        "Scale of knowledge_score:\n"
        "5: the result agrees with the explanation and with the world in all that matters\n"
        "4: it agrees, with one small fault\n"
        "3: it agrees in part\n"
        "2: it is mostly wrong\n"
        "1: it contradicts the explanation, or nothing of it can be seen\n\n"
        'Explain your decisions in a few sentences. Then end with JSON and nothing else: {"instruction_score": a whole '
        'number, "knowledge_score": a whole number}'
    ),
    "prompt_quality": _text(
        "You see an image that an editor has made. Rate how well it is made, whatever it shows: sharpness, natural "
        "structure and light, and no torn, doubled, melted or misshapen parts. A style or a subject that is unusual is "
        "no fault.",
        "",
        "5: no fault can be seen\n"
        "4: a small fault can be found by looking closely\n"
        "3: there are faults that are seen at once, but the subject is well recognisable\n"
        "2: large parts are faulty\n"
        "1: it is broken, or nothing can be recognised",
        "quality_score",
    ),
    "prompt_view_instruction_following": _text(
        "You see an original image, what an editor has made of it by an instruction that changes the viewpoint, and a "
        "true image from the viewpoint that was asked for. Rate how far the edit shows the scene from this viewpoint: "
        "direction, perspective, proportions, and what hides what. It need not equal the true image in other things.",
        _INSTRUCTION,
        _DONE,
        "instruction_score",
    ),
    "prompt_consist_multi": _text(
        "You see several reference images, and the image that was made of them by an instruction. Rate how well the "
        "things that the instruction takes from the references have kept their looks: identity, shape, colours, "
        "texture and details. Other places and sizes are no difference if the instruction implies them.",
        _INSTRUCTION,
        _CHANGES,
        "consistency_score",
    ),
    "prompt_instruction_multi": _text(
        "You see several reference images, and the image that was made of them by an instruction. Rate how far all "
        "that the instruction names was taken from its reference, and put together as it says.",
        _INSTRUCTION,
        _DONE,
        "instruction_score",
    ),
    "prompt_consist_temporal": _text(
        "You see a sequence of frames in their order. Frame <N> was generated, the others are real. Rate how well "
        "frame <N> fits to the others: who and what is there, style, background, and places that follow on each other. "
        "Differences by the motion itself are none.",
        _INSTRUCTION,
        _CHANGES,
        "consistency_score",
    ),
    "prompt_instruction_temporal": _text(
        "You see a sequence of frames in their order. Frame <N> was generated by an instruction, the others are real. "
        "Rate how far frame <N> shows what must be seen at its place in the sequence: the right stage of the event, "
        "neither a copy of another frame nor an unrelated picture.",
        _INSTRUCTION,
        _DONE,
        "instruction_score",
    ),
}
