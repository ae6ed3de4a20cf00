"""Real captioned pictures (see tests/corpora.py) as a user of the raw path has them: conversations, captions, trees.

write_llava(pairs, folder)      folder/conversations.json, LLaVA-style: one picture, several, none
write_trees(pairs, folder)      folder/trees.jsonl: several annotations of a picture, for `Trees`
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hpcdata.multimodal import DatasetBase
from tests.corpora import Pair

_ASKED = ("What is shown?", "Describe this picture.", "What do you see here?", "Give this picture a name.")


def write_llava(pairs: Sequence[Pair], folder: Path) -> Path:
    """Of ten records: seven with a picture, two with several, one without; some have more turns."""
    records: list[dict[str, Any]] = []
    rest = list(pairs)
    while rest:
        number = len(records)
        count = (1, 1, 1, 2, 1, 0, 1, 3, 1, 1)[number % 10]
        used, rest = rest[:count], rest[count:]
        markers = "<image>\n" * len(used)
        said = [("human", f"{markers}{_ASKED[number % 4]}"), ("gpt", " ".join(pair.caption for pair in used) or "Hi.")]
        if number % 3 == 0:
            said += [("human", "In one word?"), ("gpt", used[0].title.split()[0] if used else "Nothing.")]
        record = {"id": f"r{number}", "conversations": [{"from": who, "value": text} for who, text in said]}
        if used:
            paths = [str(pair.image) for pair in used]
            record["image"] = paths if len(paths) > 1 else paths[0]
        records.append(record)
    path = folder / "conversations.json"
    path.write_text(json.dumps(records))
    return path


def write_trees(pairs: Sequence[Pair], folder: Path) -> Path:
    path = folder / "trees.jsonl"
    with path.open("w") as file:
        for pair in pairs:
            words = pair.title.split()
            annotations = [
                {"style": "user_qa", "question": f"Is the word {word} in its title?", "answer": f"Yes, {pair.title}."}
                for word in words[:3]
            ]
            annotations.append({"style": "long_caption", "text": pair.caption})
            file.write(json.dumps({"image": str(pair.image), "message_list": annotations, "id": pair.key}) + "\n")
    return path


class Trees(DatasetBase):
    """What `write_trees` wrote, in `data_dir`."""

    def load(self) -> list[dict[str, Any]]:
        with open(f"{self.data_dir}/trees.jsonl") as file:
            return [json.loads(line) for line in file]

    def get(self, item: int, rng: np.random.RandomState) -> dict[str, Any]:
        found = self.data[item]
        return {"image": found["image"], "message_list": found["message_list"], "metadata": {"id": found["id"]}}
