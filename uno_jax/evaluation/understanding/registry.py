"""The exams by name."""

from __future__ import annotations

from uno_jax.evaluation.understanding.exam import Exam
from uno_jax.evaluation.understanding.held_out import HELD_OUT_ANSWERS, HELD_OUT_CAPTIONS, HELD_OUT_EXPECTED
from uno_jax.evaluation.understanding.mmbench import MMBENCH
from uno_jax.evaluation.understanding.mme import MME
from uno_jax.evaluation.understanding.mmmu import MMMU, MMMU_COT
from uno_jax.evaluation.understanding.pope import POPE
from uno_jax.evaluation.understanding.vqa import TEXTVQA, VQAV2

EXAMS: dict[str, Exam] = {
    exam.name: exam
    for exam in (
        *(HELD_OUT_ANSWERS, HELD_OUT_EXPECTED, HELD_OUT_CAPTIONS),
        POPE,
        MME,
        MMBENCH,
        *(MMMU, MMMU_COT),
        *(VQAV2, TEXTVQA),
    )
}
