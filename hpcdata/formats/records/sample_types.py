"""What Energon makes of a sample, told from what all samples hold: `sample_type` and `field_map` of dataset.yaml.

    one picture and one text each      CaptioningSample
    one picture each                   ImageSample
    one text each                      TextSample
    anything else                      CrudeWebdataset: all members as they are, for a cooker of the user

A text is a member (`txt`), or a field of `json`. A field may have alternatives (`jpg,png`), of which Energon takes the
first that a sample has.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from hpcdata.base.errors import UserError
from hpcdata.formats.records.tar_members import OpenTar, TarSample
from hpcdata.media.kinds import IMAGE_EXTENSIONS
from hpcdata.samples import BadSample
from hpcdata.sources import parsing
from hpcdata.sources.base import TEXT_EXTENSIONS, TEXT_FIELDS
from hpcdata.sources.pictures.fields import talk_in

CRUDE = "CrudeWebdataset"
_MOST_KINDS = 1000
_Kind = tuple[str, ...]
"""Extensions of a sample, and of its text in JSON: `json[text]`."""


@dataclass(frozen=True, kw_only=True)
class SampleType:
    name: str
    """A class of `megatron.energon`."""
    fields: Mapping[str, str] = field(default_factory=dict)
    """Its field -> where it stands in a sample."""

    def to_yaml(self) -> str:
        lines = ["sample_type:", "  __module__: megatron.energon", f"  __class__: {self.name}"]
        if self.name == CRUDE:
            lines = lines[:1] and ["__module__: megatron.energon", f"__class__: {self.name}"]
        if self.fields:
            lines += ["field_map:", *(f'  {name}: "{value}"' for name, value in self.fields.items())]
        return "\n".join(lines) + "\n"


class Profile:
    """What the samples of a dataset hold, as they come."""

    def __init__(self) -> None:
        self._kinds = Counter[_Kind]()

    def add(self, tar: OpenTar, sample: TarSample) -> None:
        extensions = tuple(sorted(member.extension for member in sample.members))
        if len(self._kinds) < _MOST_KINDS:
            self._kinds[extensions + _texts_of_json(tar, sample, extensions)] += 1

    def merge(self, other: Profile) -> None:
        self._kinds += other._kinds

    def are_pairs(self) -> bool:
        """Whether no sample has more than a picture, a text and fields without a conversation."""
        return all(
            sum(map(_is_picture, kind)) <= 1
            and _TALK not in kind
            and all(_is_picture(item) or item in ("json", *TEXT_EXTENSIONS) or "[" in item for item in kind)
            for kind in self._kinds
        )

    def sample_type(self) -> SampleType:
        pictures = _common([[item for item in kind if _is_picture(item)] for kind in self._kinds])
        texts = _common([_texts(kind) for kind in self._kinds], at_least=True)
        has_none = all(not any(map(_is_picture, kind)) for kind in self._kinds)
        if len(self._kinds) >= _MOST_KINDS or not self._kinds:
            return SampleType(name=CRUDE)
        if pictures and texts:
            return SampleType(name="CaptioningSample", fields={"image": pictures, "caption": texts})
        if pictures and not any(map(_texts, self._kinds)) and not any("json" in kind for kind in self._kinds):
            return SampleType(name="ImageSample", fields={"image": pictures})
        if has_none and texts:
            return SampleType(name="TextSample", fields={"text": texts})
        return SampleType(name=CRUDE)


_NEEDED = {
    "ImageSample": ("image",),
    "CaptioningSample": ("image", "caption"),
    "VQASample": ("image", "context"),
    "MultiChoiceVQASample": ("image", "context"),
    "TextSample": ("text",),
}
"""Of classes of megatron.energon 7.4, what their constructors need."""


def given_type(name: str, fields: str | None) -> SampleType:
    """`CaptioningSample` and `image=jpg,caption=json[text]`, where alternatives have `|`: `image=jpg|png`."""
    if name == "Crude":
        name = CRUDE
    pairs = [item.partition("=") for item in fields.split(",")] if fields else []
    if bad := next((item for item in pairs if not item[0].isidentifier() or not item[2] or '"' in item[2]), None):
        raise UserError(f"--field-map={fields}: {''.join(bad)!r} is no NAME=EXTENSION, such as image=jpg|png")
    if not name.isidentifier() or bool(pairs) == (name == CRUDE):
        raise UserError(
            f"--sample-type={name}: expected Crude, or a class of megatron.energon with --field-map "
            "NAME=EXTENSION,NAME=json[FIELD]"
        )
    if missing := [field for field in _NEEDED.get(name, ()) if field not in {pair[0] for pair in pairs}]:
        raise UserError(f"--field-map={fields}: {name} has no sample without {', '.join(missing)}")
    return SampleType(name=name, fields={key: value.replace("|", ",") for key, _, value in pairs})


def _common(found: list[list[str]], *, at_least: bool = False) -> str:
    """The alternatives, if each sample has exactly one of them, or at least one; empty if not."""
    if not all(len(items) == 1 or (items and at_least) for items in found):
        return ""
    return ",".join(dict.fromkeys(item for items in found for item in items))


def _is_picture(extension: str) -> bool:
    return extension.rpartition(".")[2] in IMAGE_EXTENSIONS


def _texts(kind: _Kind) -> list[str]:
    """Where the text of a sample stands, in order of preference; where it is a conversation, nowhere."""
    found = [item for item in TEXT_EXTENSIONS if item in kind]
    return [] if _TALK in kind else found or [item for item in kind if item.startswith("json[")]


_TALK = "json(conversation)"


def _texts_of_json(tar: OpenTar, sample: TarSample, extensions: _Kind) -> _Kind:
    line = next((member for member in sample.members if member.extension == "json"), None)
    if line is None or not {*TEXT_EXTENSIONS}.isdisjoint(extensions):
        return ()
    try:
        record = parsing.load(tar.read(line.offset, line.size))
    except BadSample:
        return ()
    if not isinstance(record, dict):
        return ()
    if _holds_talk(record):
        return (_TALK,)
    return tuple(f"json[{name}]" for name in TEXT_FIELDS if isinstance(record.get(name), str))[:1]


def _holds_talk(record: dict[str, object]) -> bool:
    try:
        talk = talk_in(record)
    except BadSample:
        return True
    return talk is not None and isinstance(talk[1], list)
