"""Every block of the two Molmo documents, as it stands there but for its import lines.

    pytest tests/multimodal/test_documents.py

"Data Pipeline" and "Data Preparation Guide" of mattw-ai2/robo_mm_olmo_gantry. What they leave open (a `config`, a
`model`, their own data sets) is made below.
"""

from __future__ import annotations

import functools
import json
import time
import types
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler

from hpcdata.multimodal import (
    DataFormatter,
    Dataset,
    DatasetBase,
    DeterministicDataset,
    HfDataset,
    ImagePreprocessor,
    InterleavedTextPreprocessor,
    IterableDatasetMixture,
    MMCollator,
    MolmoPreprocessor,
    MolmoPreprocessorConfig,
    get_dataset,
    register,
)

SIZE = 12


def picture(number: int) -> np.ndarray:
    height, width = 40 + 3 * number, 60 - 2 * number
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows * 5 % 256, columns * 4 % 256, np.full_like(rows, number * 20)], axis=2).astype(np.uint8)


class Captions(DatasetBase):
    """In place of the sets of the documents, which cannot be had here."""

    def load(self) -> list[dict[str, Any]]:
        return [{"image": picture(n), "style": "long_caption", "text": f"Picture number {n}."} for n in range(SIZE)]


class Questions(DatasetBase):
    def load(self) -> list[dict[str, Any]]:
        return [{"image": picture(n), "style": "vqa2", "question": f"Is it {n}?", "answer": "yes"} for n in range(SIZE)]


class Points(DatasetBase):
    def load(self) -> list[dict[str, Any]]:
        return [
            {"image": picture(n), "style": "pointing", "label": "Dot", "points": np.array([[10.0, 20.0 + n]])}
            for n in range(SIZE)
        ]


PixMoCap, VQA2, PixMoPoints = Captions, Questions, Points


@pytest.fixture(scope="module", autouse=True)
def names():
    from hpcdata.multimodal.datasets import registry

    before = dict(registry._ENTRIES)
    for name, made in {"pixmo_cap": Captions, "vqa2": Questions, "text_vqa": Questions, "chart_qa": Questions}.items():
        registry._ENTRIES.pop(registry._key(name), None)
        register(name, functools.partial(made) if name in ("text_vqa", "chart_qa") else made)
    yield
    registry._ENTRIES.clear()
    registry._ENTRIES.update(before)


class Model(torch.nn.Module):
    """A model that takes what the documents hand over: text, and pictures at their places."""

    def __init__(self, vocabulary: int, *, width: int = 16) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(vocabulary, width)
        self.picture = torch.nn.Linear(3, width)
        self.head = torch.nn.Linear(width, vocabulary)

    def forward(
        self,
        input_ids: torch.Tensor,
        labels: torch.Tensor,
        attention_mask: torch.Tensor,
        position_ids: torch.Tensor,
        images: torch.Tensor | None = None,
        image_masks: torch.Tensor | None = None,
        image_input_idx: torch.Tensor | None = None,
    ) -> Any:
        assert input_ids.shape == labels.shape == attention_mask.shape == position_ids.shape
        hidden = self.embed(input_ids)
        if images is not None and image_input_idx is not None:
            rows, crops = torch.nonzero(image_input_idx >= 0, as_tuple=True)
            seen = self.picture(images.float().mean(dim=(-2, -1)))[rows, crops]
            hidden = hidden.index_put((rows, image_input_idx[rows, crops]), seen, accumulate=True)
        logits = self.head(hidden)
        shifted = labels[:, 1:].reshape(-1)
        loss = torch.nn.functional.cross_entropy(logits[:, :-1].reshape(len(shifted), -1), shifted, ignore_index=-100)
        return types.SimpleNamespace(loss=loss, logits=logits)


@pytest.fixture(scope="module")
def config():
    return MolmoPreprocessorConfig(
        tokenizer="embedded", crop_mode="resize", base_image_input_size=[56, 56], overlap_margins=[0, 0], max_crops=1
    )


@pytest.fixture(scope="module")
def model(config):
    torch.manual_seed(0)
    return Model(config.build_preprocessor(is_training=True).words.vocab_size)


# ---- Data Pipeline, 1. Dataset Loading


def test_dataset_types(tmp_path):
    list_of_examples = [{"image": picture(0), "messages": ["What?", "A dot."]}]

    class MyDataset(DatasetBase):
        def load(self):
            # Load entire dataset
            return list_of_examples

    assert MyDataset()[0]["messages"] == ["What?", "A dot."]

    import datasets

    datasets.Dataset.from_dict({"text": ["one", "two"]}).save_to_disk(str(tmp_path / "hf_dataset_name"))

    class MyHfDataset(HfDataset):
        PATH = str(tmp_path / "hf_dataset_name")

    assert [example["text"] for example in MyHfDataset(split="train")] == ["one", "two"]
    example = {"image": picture(1)}

    class CustomDataset(Dataset):
        size = 3

        def __len__(self) -> int:
            return self.size

        def get(self, item, rng):
            # Load and return example
            return example

    assert len(CustomDataset()) == 3
    assert CustomDataset().get(1, np.random.RandomState(0)) is example


# ---- 2. Data Formatting


def test_formatting():
    image = picture(0)
    formatter = DataFormatter()
    asked = formatter.format_qa("What is it?", "A dot.", image)
    assert asked["messages"] == [
        {"role": "user", "content": "What is it?"},
        {"role": "assistant", "content": "A dot."},
    ]
    assert asked["image"] is image
    assert formatter.format_qa(question="Why?", answer="So.")["image"] is None
    told = formatter.format_caption(image, "A dot.")
    assert [message["role"] for message in told["messages"]] == ["user", "assistant"]
    assert told["messages"][1]["content"] == "A dot."


# ---- 3. Preprocessing


def test_image_preprocessing():
    image, rng = picture(3), np.random.RandomState(0)
    made = ImagePreprocessor()(image, rng)
    assert isinstance(made, torch.Tensor)
    assert made.shape[-3] == 3
    assert made.dtype == torch.float32


def test_text_preprocessing(config):
    messages: list[dict[str, str]] = [
        {"role": "user", "content": "What?"},
        {"role": "assistant", "content": "A dot."},
    ]
    ids = InterleavedTextPreprocessor()(messages, "embedded")
    assert isinstance(ids, list)
    assert all(isinstance(token_id, int) for token_id in ids)


def test_multimodal_preprocessing(config):
    preprocessor = config.build_preprocessor(for_inference=False, is_training=True)
    assert isinstance(preprocessor, MolmoPreprocessor)
    example = {"image": picture(2), "messages": ["What?", "A dot."], "metadata": {"id": 7}}
    made = preprocessor(example, np.random.RandomState(0))
    assert {"images", "input_ids", "labels", "image_input_idx", "metadata"} <= set(made)
    assert made["images"].shape == (1, 3, 56, 56)
    assert made["image_input_idx"].shape == (1,)
    assert made["metadata"]["id"] == 7


# ---- 4. Collation


@pytest.mark.parametrize(("pad_mode", "columns"), [("max_len", 2048), ("batch_max", None), ("to_128", 128)])
def test_collation(config, pad_mode, columns):
    preprocessor = config.build_preprocessor(for_inference=False, is_training=True)
    collator = config.build_collator(sequence_length=2048, pad_mode=pad_mode)
    assert isinstance(collator, MMCollator)
    examples = [
        preprocessor({"image": [picture(n)] * n, "messages": ["?" * (n + 1), "Yes."]}, np.random.RandomState(n))
        for n in range(3)
    ]
    batch = collator(examples)
    columns = columns or batch["input_ids"].shape[1]
    if pad_mode == "to_128":
        assert batch["input_ids"].shape[1] % 128 == 0
        columns = batch["input_ids"].shape[1]
    assert batch["input_ids"].shape == (3, columns)
    assert batch["labels"].shape == (3, columns)
    assert batch["attention_mask"].shape == (3, columns)
    assert batch["images"].shape == (3, 2, 3, 56, 56)
    assert batch["image_input_idx"].shape == (3, 2)


# ---- 5. Data Loading


def test_data_loading(config, model):
    dataset = DeterministicDataset(PixMoCap(split="train"), config.build_preprocessor(is_training=True), seed=1)
    collator = config.build_collator(sequence_length=2048, pad_mode="batch_max")
    dataloader = DataLoader(
        dataset,
        batch_size=4,
        collate_fn=collator,
        num_workers=2,
        prefetch_factor=2,
    )
    for batch in dataloader:
        # batch ready for model
        outputs = model(**batch)
        assert torch.isfinite(outputs.loss)


def test_distributed_loading(config):
    dataset = DeterministicDataset(PixMoCap(split="train"), config.build_preprocessor(is_training=True), seed=1)
    collator = config.build_collator(sequence_length=2048, pad_mode="batch_max")
    world_size, per_device_batch_size, seen = 2, 3, []
    for rank in range(world_size):
        # Each GPU gets different data
        sampler = DistributedSampler(
            dataset,
            num_replicas=world_size,
            rank=rank,
            shuffle=True,
        )
        dataloader = DataLoader(
            dataset,
            sampler=sampler,
            batch_size=per_device_batch_size,
            collate_fn=collator,
        )
        seen += [len(batch["input_ids"]) for batch in dataloader]
    assert sum(seen) == SIZE


# ---- Dataset Mixtures


def test_mixtures():
    mixture = IterableDatasetMixture(
        datasets=[
            PixMoCap(),  # Captioning
            VQA2(),  # VQA
            PixMoPoints(),  # Pointing
        ],
        weights=[0.5, 0.3, 0.2],  # Sample proportions
        seed=42,
    )
    some = [example for _, example in zip(range(200), mixture, strict=False)]
    shares = [
        sum(example["style"] == style for example in some) / 200 for style in ("long_caption", "vqa2", "pointing")
    ]
    assert shares == pytest.approx([0.5, 0.3, 0.2], abs=0.1)


def test_mixtures_of_the_guide():
    mixture = IterableDatasetMixture(
        datasets=[
            get_dataset("pixmo_cap"),
            get_dataset("vqa2"),
            get_dataset("text_vqa"),
        ],
        weights=[0.5, 0.25, 0.25],
        seed=42,
    )
    assert len([example for _, example in zip(range(10), mixture, strict=False)]) == 10


# ---- Deterministic Data Iteration


def test_deterministic_iteration():
    class Drawing(Dataset):
        def __len__(self) -> int:
            return 5

        def get(self, item, rng):
            return {"item": item, "draw": rng.randint(2**31 - 1)}

    dataset = DeterministicDataset(Drawing(), seed=3)
    for idx, epoch in ((0, 0), (4, 2)):
        seed = (3 * 195172 + idx + 5 * epoch) % (2**32 - 1)
        expected = np.random.RandomState(seed).randint(2**31 - 1)
        assert dataset.get(idx, epoch) == {"item": idx, "draw": expected}


# ---- Caching, Performance


def test_caching_and_preloading():
    # Cache processed datasets
    @functools.lru_cache(maxsize=1)
    def cached(name: str) -> Dataset:
        return get_dataset(name)

    dataset = cached("pixmo_cap")
    assert cached("pixmo_cap") is dataset
    # Load entire dataset in RAM
    dataset.preload()


# ---- Example: Complete Pipeline


def test_complete_pipeline(config, model):
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    # 1. Define dataset
    dataset = PixMoCap(split="train")

    # 2. Build preprocessor
    preprocessor = config.build_preprocessor(
        for_inference=False,
        is_training=True,
    )

    # 3. Wrap with deterministic iteration
    dataset = DeterministicDataset(
        dataset=dataset,
        preprocessor=preprocessor,
        seed=42,
    )

    # 4. Build collator
    collator = config.build_collator(
        sequence_length=2048,
        pad_mode="to_128",
    )

    # 5. Create DataLoader
    dataloader = DataLoader(
        dataset,
        batch_size=32,
        collate_fn=collator,
        num_workers=4,
        pin_memory=True,
    )

    # 6. Training loop
    for _ in range(6):
        for batch in dataloader:
            outputs = model(**batch)
            loss = outputs.loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(float(loss))
    assert losses[-1] < losses[0]


# ---- Data Preparation Guide


def test_check_dataset_loading(capsys):
    # Load dataset
    dataset = get_dataset("pixmo_cap", split="train")

    print(f"Dataset size: {len(dataset)}")

    # Get example
    example = dataset[0]
    print(f"Keys: {example.keys()}")
    print(f"Image shape: {example['image'].shape}")
    assert capsys.readouterr().out.startswith(f"Dataset size: {SIZE}")


def test_adding_a_local_dataset(tmp_path, monkeypatch, config):
    folder = tmp_path / "my_dataset"
    (folder / "images").mkdir(parents=True)
    records = []
    for number in range(3):
        Image.fromarray(picture(number)).save(folder / "images" / f"img{number}.png")
        records.append({"id": number, "image": f"img{number}.png", "question": "What?", "answer": f"Number {number}."})
    (folder / "annotations.json").write_text(json.dumps(records))
    monkeypatch.setenv("MOLMO_DATA_DIR", str(tmp_path))

    class MyDataset(DatasetBase):
        def load(self):
            with open(f"{self.data_dir}/annotations.json") as f:
                return json.load(f)

        def get(self, idx, rng):
            item = self.data[idx]
            image = Image.open(f"{self.data_dir}/images/{item['image']}")

            return {
                "image": np.array(image),
                "messages": [
                    {"role": "user", "content": item["question"]},
                    {"role": "assistant", "content": item["answer"]},
                ],
                "metadata": {"id": item["id"]},
            }

    dataset = MyDataset(split="train")
    assert len(dataset) == 3
    example = dataset[1]
    assert example["image"].shape == picture(1).shape
    print(f"Messages: {example['messages']}")
    made = config.build_preprocessor(is_training=True)(example, np.random.RandomState(0))
    assert made["metadata"]["id"] == 1


def test_image_preprocessing_of_the_guide():
    mm_preprocessor = MolmoPreprocessorConfig(
        max_crops=1,
        overlap_margins=[0, 0],
        base_image_input_size=[336, 336],
        image_token_length_w=24,
        image_token_length_h=24,
    )
    preprocessor = mm_preprocessor.build_preprocessor(tokenizer="embedded", is_training=True)
    made = preprocessor({"image": picture(4), "messages": ["What?", "Four."]}, np.random.RandomState(0))
    assert made["images"].shape[1:] == (3, 336, 336)
    patch = preprocessor.words.special("<im_patch>")
    assert int((made["input_ids"] == patch).sum()) == len(made["images"]) * 24 * 24


@pytest.mark.parametrize("option", ["use_random_crops", "use_color_jitter", "use_horizontal_flip"])
def test_augmentation_of_the_guide(option):
    """Off by default, by the example's own randomness, and never in evaluation."""
    plain, changed = (
        MolmoPreprocessorConfig(tokenizer="embedded", base_image_input_size=[56, 56], crop_mode="resize", **options)
        for options in ({}, {option: True})
    )
    example = {"image": picture(4), "messages": ["What?", "Four."]}

    def made(config, seed, *, is_training=True):
        preprocessor = config.build_preprocessor(is_training=is_training)
        return preprocessor(example, np.random.RandomState(seed))["images"]

    alone = made(plain, 0)
    assert any(not np.array_equal(made(changed, seed), alone) for seed in range(4))
    assert np.array_equal(made(changed, 3), made(changed, 3))
    assert np.array_equal(made(changed, 3, is_training=False), made(plain, 3, is_training=False))


def test_monitoring(config):
    dataset = DeterministicDataset(PixMoCap(), config.build_preprocessor(is_training=True), seed=1)
    dataloader = DataLoader(dataset, batch_size=4, collate_fn=config.build_collator(pad_mode="batch_max"))
    start = time.time()
    for i, _batch in enumerate(dataloader):
        if i == 2:
            break
    elapsed = time.time() - start
    print(f"Time per batch: {elapsed / 100:.3f}s")
