"""What is said of a style before a question: a system prompt, and a hint of how long the answer is to be.

| system_prompt | before the first message |
|---|---|
| `none` | nothing |
| `style` | `<style>:` |
| `demo_or_style` (default) | `<style>:`; nothing for `demo` and `android_control`, and for `DEMOS` in 9 of 10 draws |
| `style_and_length` | `<style> <n>:` in 9 of 10 draws, else `<style> :` |
| `style_and_length_v2` | the same, but `<style>:` |

n is the length of the last answer in characters, off by a normal draw of deviation 25, in units of 15. When an answer
is asked for, it is `default_inference_len`. An example without a style has nothing before it.
"""

from __future__ import annotations

import numpy as np

SYSTEM_PROMPTS = ("none", "style", "demo_or_style", "style_and_length", "style_and_length_v2")
TRAINED = {
    "eval_short_answer": "vqa2",
    "eval_multiple_choice": "a_okvqa_mc",
    "video_eval_short_answer": "llava_video_da",
    "video_eval_multiple_choice": "llava_video_mc",
}
"""Styles of evaluations -> the style of training that they are asked in."""
DEMOS = frozenset(
    (
        "point_count",
        "pointing",
        "user_qa",
        "long_caption",
        "short_caption",
        "video_long_caption",
        "video_short_caption",
        "cosyn_point",
        "correction_qa",
    )
)
_BARE = ("demo", "android_control")
_SHARE_WITHOUT = 0.1
_DEVIATION, _UNIT = 25, 15


def prefix(
    system_prompt: str,
    style: str | None,
    last_answer: str | None,
    rng: np.random.RandomState | None,
    *,
    default_inference_len: int | None,
) -> str:
    """last_answer: None when it is asked for. rng: None for no chance: no hint of a length that is not asked for."""
    if style is None or system_prompt == "none":
        return ""
    style = TRAINED.get(style, style)
    if system_prompt == "style":
        return f"{style}:"
    if system_prompt == "demo_or_style":
        is_bare = style in _BARE or (style in DEMOS and (rng is None or rng.random_sample() > _SHARE_WITHOUT))
        return "" if is_bare else f"{style}:"
    if (number := _length(last_answer, rng, default_inference_len)) is not None:
        return f"{style} {number}:"
    return f"{style} :" if system_prompt == "style_and_length" else f"{style}:"


def _length(last_answer: str | None, rng: np.random.RandomState | None, default: int | None) -> int | None:
    if last_answer is None:
        return default
    if rng is None or rng.random_sample() <= _SHARE_WITHOUT:
        return None
    return max(0, (len(last_answer) + int(rng.normal(scale=_DEVIATION))) // _UNIT)
