"""Texts for a judge of UniGenBench++, in words of this project. The form of the answer is the scorer's."""

from __future__ import annotations

from collections.abc import Mapping

TEMPLATE = "unigen"

_EN = """You check whether an image shows what its prompt asks for. Judge only what can be seen, and nothing that you \
would have to guess.

Prompt: <prompt>

Test points, each with its meaning and with what it is in this prompt:
<points>

For each test point, in this order, say in a sentence what the image shows of it. Then give 1 if the image meets it, \
and 0 if it does not or if that cannot be seen. Answer in this form, with one entry for each test point in both lists:

<analysis>["..", ".."]</analysis>
<score>[1, 0]</score>"""

_ZH = """请检查一张图像是否画出了提示词所要求的内容。只依据画面中看得见的东西判断，不要猜测。

提示词：<prompt>

考点，以及各自的含义和在本提示词中的具体内容：
<points>

请按以上顺序，对每个考点用一句话说明图像中的情况；图像满足该考点记 1，不满足或看不出来记 0。
请按下面的形式回答，两个列表的长度都等于考点的个数：

<analysis>["..", ".."]</analysis>
<score>[1, 0]</score>"""

TEXTS: Mapping[str, Mapping[str, str]] = {"en": {TEMPLATE: _EN}, "zh": {TEMPLATE: _ZH}}
"""Language of the prompts -> texts by name."""

MEANINGS: Mapping[str, str] = {
    "Style": "the style, medium or artist",
    "World Knowledge": "known people, places, buildings and other facts of the world",
    "Logical Reasoning": "what follows from the prompt without being said in it",
    "Text Generation": "written words, complete and with nothing added",
    "Attribute - Color": "colours",
    "Attribute - Shape": "shapes",
    "Attribute - Size": "sizes, heights, lengths and widths",
    "Attribute - Material": "materials and surfaces",
    "Attribute - Quantity": "the number of things",
    "Attribute - Expression": "the emotion in a face",
    "Action - Full-body (Character/Anthropomorphic)": "what a person, or a figure like one, does with the whole body",
    "Action - Hand (Character/Anthropomorphic)": "what hands do, with all of their fingers and well formed",
    "Action - Animal": "what an animal does",
    "Action - Contact Interaction": "what things or persons do to each other while they touch",
    "Action - Non-contact Interaction": "what they do towards each other without touching, such as a glance",
    "Action - State": "a state that lasts",
    "Entity Layout - Two-Dimensional Space": "places in the picture plane",
    "Entity Layout - Three-Dimensional Space": "places in space",
    "Relationship - Comparison": "how two things compare",
    "Relationship - Composition": "what a thing consists of",
    "Relationship - Inclusion": "what is inside of a thing, or shown on its surface",
    "Relationship - Similarity": "what different things have in common",
    "Compound - Imagination": "what cannot exist in reality",
    "Compound - Feature Matching": "different features, each on its own thing",
    "Grammar - Negation": "what must not be there",
    "Grammar - Pronoun Reference": "what a pronoun stands for",
    "Grammar - Consistency": "a feature that several things share",
    "风格": "画风、媒介或艺术家",
    "世界知识": "知名的人物、地点、建筑和其他常识",
    "逻辑推理": "提示词没有明说、但可以推出的内容",
    "文本生成": "画面中的文字，完整且没有多余",
    "属性-颜色": "颜色",
    "属性-形状": "形状",
    "属性-大小": "大小、高低、长短和粗细",
    "属性-材质": "材料和表面",
    "属性-数量": "事物的个数",
    "属性-表情": "脸上的情绪",
    "动作-人物/拟人全身动作": "人物或拟人形象全身的动作",
    "动作-人物/拟人手部动作": "手部的动作，手指齐全、形状正常",
    "动作-动物动作": "动物的动作",
    "动作-实体间有接触互动": "相互接触的互动",
    "动作-实体间无接触互动": "没有接触的互动，例如对视",
    "动作-状态": "持续的状态",
    "实体布局-二维空间": "在画面平面中的位置",
    "实体布局-三维空间": "在空间中的位置",
    "关系-比较关系": "两个事物的比较",
    "关系-构成关系": "一个事物由什么组成",
    "关系-包含关系": "在某物之内或其表面上的事物",
    "关系-相似关系": "不同事物的共同之处",
    "复合考点-想象力": "现实中不可能有的事物",
    "复合考点-不同实体特征匹配": "不同的特征各属于自己的事物",
    "语法-否定": "不应出现的内容",
    "语法-代词指代": "代词所指的事物",
    "语法-统一性": "多个事物共有的特征",
}
"""Test point -> what it is about. Others have only their description in the prompt."""
