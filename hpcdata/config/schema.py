"""The run's configuration: every key that exists, its default, and whether it changes the output bytes.

YAML in `conf/` chooses values, these dataclasses define them: unknown keys fail with a suggestion, wrong types
with the expected one. *Semantic* fields enter the plan's fingerprint, because they change what is written;
*transient* ones (time limits, workers, intervals) may differ between submissions of one run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

REQUIRED = "???"


def semantic(default: Any = dataclasses.MISSING, *, added_later: bool = False) -> Any:
    """A field that changes output bytes.

    added_later: runs were begun without it. The default is then what they did, and does not enter the fingerprint:
    they go on with the same one.
    """
    return field(default=default, metadata={"semantic": True, "added_later": added_later})


def transient(default: Any = dataclasses.MISSING, *, joined: bool = False) -> Any:
    """A field that does not change output bytes. joined: a list of names is taken as well, and joined by commas."""
    return field(default=default, metadata={"semantic": False, "joined": joined})


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    raw_data_dir: str | list[str] = transient(REQUIRED)
    """Inputs: a path, glob, brace list, folder, wids index, or a list of these. Resolved once, into the plan."""
    token_output_dir: str = transient(REQUIRED)
    """The run's folder: plan, shards, ledgers, dataset."""
    source: Literal[
        "auto", "webdataset", "jsonl", "folder", "text", "parquet", "llava_mix", "coco", "vqa", "urls", "dataset"
    ] = semantic("auto")
    """`auto` goes by file names; `jsonl` holds pairs or conversations, `text` documents; `parquet` reads Parquet files
    alone, whose rows are records with pictures or conversations; `llava_mix` is a YAML that lists files, and which
    part of each is taken; `coco` and `vqa` are annotations of COCO, LVIS and VQA v2; `urls` is rows with URLs of
    pictures in CSV, TSV, Parquet or JSON, for stage=fetch; `dataset`: rows of a dataset of tokens, for stage=export
    alone."""
    mapping: str | None = transient(None)
    """A YAML file that says which field is the text, the picture, the conversation: for JSON, CSV, TSV and Parquet of
    any fields, see hpcdata/sources/custom/mapping.py."""
    mapped_by: str | None = semantic(None, added_later=True)
    """Needs no setting here: what that file says."""
    tasks: list[str] | None = semantic(None, added_later=True)
    """Of data.source=coco (COCO, LVIS), what is asked: `captions`, `boxes`, `count`, `presence`, `keypoints`, several
    in a conversation; `masks` keeps the masks of objects in the record. null: what the file has, see
    hpcdata/sources/sets/coco.py."""
    coordinates: Literal["llava", "qwen1000", "paligemma", "molmo", "pixels"] = semantic("llava", added_later=True)
    """How boxes and points are written, see hpcdata/sources/sets/coordinates.py. They are of the whole picture."""
    seed: int = semantic(0, added_later=True)
    """What `random:N` in such a list draws by."""
    text_field: str | None = semantic(None)
    """Name of the text column or tar extension; by default the usual ones are tried in a documented order."""
    image_field: str | None = semantic(None, added_later=True)
    """Extension of the picture among the members of a tar sample: `input.jpg`, or `input` for any picture of it."""
    image_root: str | None = transient(None)
    """Folder of the pictures that JSON and Parquet name: relative paths start here. null: the folder of each file."""
    outside_images: Literal["reject", "read"] = semantic("reject", added_later=True)
    """Pictures that records name by a path or a link that leads out of `data.image_root`: absolute paths, `../`.
    `reject` them as `outside_root`, or `read` them, if you trust whoever wrote the records."""
    placeholders: Literal["keep", "fix", "reject"] = semantic("keep", added_later=True)
    """Conversations whose `<image>` markers are not as many as their pictures. `keep`: pictures without any marker
    stand before the text, and another number is a reject. `fix`: a record without a marker gets one for each picture in
    front of what a user says first, which is counted. `reject`: both are rejects."""
    resolution: int = semantic(256)
    """Pixels of the short side after resizing, then a center crop to a square; `image.rule` says how."""
    max_aspect_ratio: float | None = semantic(None)
    """Keep the shapes of pictures: each gets the nearest of the sizes of about `resolution` squared pixels whose longer
    side is at most so many times the shorter one, and loses what sticks out. A GPU then takes an eighth of
    `loader.batch_size` at a time. null: squares."""
    sizes: str | list[str] | None = semantic(None, added_later=True)
    """In place of `resolution` and `max_aspect_ratio`, the sizes themselves, of which each picture gets the nearest in
    shape: `multi512`, `multi768` (hpcdata/media/sizes.py), or a list as [1024x576,768x768,576x1024], width first."""
    max_aspect: float | None = semantic(None, added_later=True)
    """Reject pictures whose longer side is more than so many times the shorter one, as `aspect_ratio`. (Liquid keeps
    those up to 2.) null: all shapes are taken. `max_aspect_ratio` above rejects none."""
    jpeg_draft: bool = semantic(False)
    """Decode JPEGs of over four times the pixels' sides needed at a half, a quarter or an eighth of them (Pillow's
    `draft`): up to four times faster, and nearly the same pixels, see hpcdata/encoders/README.md."""
    color: Literal["ignore", "srgb"] = semantic("ignore", added_later=True)
    """`srgb`: color profiles (ICC) and the gamma of PNGs are applied. `ignore`: they are not, and such pictures are
    counted; see hpcdata/media/profiles.py."""
    block_size: int | None = semantic(None)
    """Most text tokens of one text span; the rest is cut and counted. null keeps all."""
    n_train_samples: int | None = semantic(None)
    """Encode only the first N samples of the inputs."""
    shard_size: int = semantic(4096)
    """Samples in a shard, the unit that a task claims. With few, huge samples make it smaller."""
    img_token_shift: int | None = semantic(None)
    """What loaders add to image codes; it is recorded, and not added here. At least the size of the text vocabulary."""
    use_chameleon: bool = semantic(False)
    """Image codes by Chameleon's VQGAN: the same as image.tokenizer=chameleon."""
    use_slow_tokenizer: bool = semantic(False)
    """Use the reference engine of a tokenizer that has two (SentencePiece instead of its fast conversion)."""
    add_image_token: bool = semantic(False)
    """Adds one id `<image>` to the text vocabulary, which stays in the text where an image stands."""
    image_token_id: int | Literal["unidisc"] | None = semantic(None, added_later=True)
    """The id of `<image>`. null: the tokenizer's own, else one behind its vocabulary. `unidisc`: 811, as UniDisc has it
    with Llama-2's tokenizer, where 811 is a word piece, too."""
    pad_id: int | Literal["unidisc"] | None = semantic(None, added_later=True)
    """The id of padding, for loaders and exports; the data have no padding. null: the tokenizer's own, if it has one.
    `unidisc`: its own, else the first behind its vocabulary (32000 with Llama-2)."""
    split_dataset: bool = transient(True)
    """Needs no setting here: tasks always divide the shards among them."""
    use_identity_collate: bool = transient(False)
    """Needs no setting here: samples are never stacked before they are encoded."""
    save_tmp_interval: float = transient(30.0)
    """Seconds between checkpoints."""
    max_crashes: int = transient(3)
    """Reject a record as `crash` when it has killed so many processes, by a crash or because memory was short, and as
    `unreadable_file` when so many tasks could not read its file."""
    max_batch_s: float = transient(3600.0)
    """Most seconds of one batch. After that its process is ended, and the record that hangs is found as for a crash."""
    max_image_s: float = transient(60.0)
    """Most CPU seconds of one picture. A record that takes more is found as for a crash, and rejected as `crash`."""
    max_rejected: float | None = transient(None)
    """Largest share of the inputs that may be rejected. Beyond it tasks stop, and the run does not end as a success.
    null: tasks stop when the first shards are rejected nearly whole for one reason, and the run fails when most inputs
    are; 1 bears everything."""
    on_changed_input: Literal["refuse", "reject"] = transient("refuse")
    """When an input was removed or changed after planning: refuse its shards, or reject its samples."""
    max_image_pixels: int = semantic(89_478_485)
    """Reject pictures with more pixels, by their header, before decoding. The default is Pillow's: 256 MiB of RGB. So
    is a picture whose decoder would take more than 17 bytes for each of so many: large JPEG 2000 in one tile."""
    max_record_bytes: int = semantic(256 * 2**20)
    """Longest image file, text or JSON line that is read into memory."""

    @property
    def keeps_shapes(self) -> bool:
        """Whether pictures may get sizes other than a square of `resolution`."""
        return self.max_aspect_ratio is not None or self.sizes is not None


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    tokenizer: str | None = transient(None)
    """`embedded`, a tokenizer.json, a SentencePiece .model or a local HF folder; its hash enters the plan."""
    engine: Literal["auto", "fast", "reference"] = transient("auto")
    """`auto`: a fast engine where it gives the ids of the reference engine; `fast` insists on it. The ids are equal."""
    keep_raw: bool = semantic(False, added_later=True)
    """Store the texts themselves, as UTF-8, beside their ids, and whole where ids are cut: for exports that want texts.
    Loaders do not read them. With text.tokenizer=none they are all that is stored of texts."""


@dataclass(frozen=True, kw_only=True)
class ImageConfig:
    tokenizer: str | None = semantic(None)
    """A preset (`embedded`, `vq16_t2i`, `chameleon`, ...: `hpcdata/encoders/README.md`), or null for text only."""
    checkpoint: str | None = transient(None)
    """The preset's weight file; its hash enters the plan."""
    precision: Literal["fp32", "bf16", "fp16"] = semantic("fp32")
    """Precision of the network that makes the codes."""
    compile: bool = semantic(False)
    """torch.compile the encoder, for pictures of one size; needs a C++ compiler or Triton where tasks run, and a minute
    of each. A few codes differ from those without; no effect on `embedded`."""
    cpu_threads: int = semantic(1)
    """Torch threads of one task on a CPU: sums are split by it, so it is part of what makes the codes."""
    rule: Literal["white", "molmo", "liquid"] = semantic("white", added_later=True)
    """How picture files become pixels. `white`: upright, alpha on white, resized bilinearly. `molmo` and `liquid`: as
    these systems do it, see hpcdata/media/rules.py."""
    device: str = transient("auto")
    """`auto` (a GPU of this task if there is one), `cpu`, `cuda`."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    text_vocab_size: int | None = semantic(None)
    """The text vocabulary that the model reserves; checked against the tokenizer, and sets the stored dtype."""


@dataclass(frozen=True, kw_only=True)
class LoaderConfig:
    batch_size: int | Literal["auto"] = semantic(16)
    """Samples of one encoder batch, cut by position in the shard. `auto`: the run's first task finds what its GPU
    encodes fastest; 16 on a CPU, where pictures are encoded one at a time."""
    num_workers: int = transient(2)
    """Threads that read and decode ahead of the encoder."""
    batches_ahead: int = transient(2)
    """Batches that they work on ahead of it. stage=fetch takes more by itself, so that slow hosts delay no others."""


@dataclass(frozen=True, kw_only=True)
class CopyConfig:
    format: Literal["webdataset", "jsonl", "hf"] = semantic("webdataset")
    """Of stage=copy: one tar a shard, or one file of JSON lines a shard with its pictures as files beside it, or (hf)
    one Arrow stream a shard, which `hpcdata export --format hf` lays out for Hugging Face datasets."""
    columns: Literal["pairs", "records"] = semantic("pairs", added_later=True)
    """Of copy.format=hf. pairs: key, image, text, metadata; records: key, images, text, conversations, metadata, files.
    """
    needs: Literal["any", "image", "text", "both"] = semantic("any")
    """Which samples are copied: those that have at least this. The others are rejects."""
    decode: bool = semantic(True)
    """Reject samples with a picture that cannot be decoded within the limits. false: copy pictures unseen."""


@dataclass(frozen=True, kw_only=True)
class ConvertConfig:
    form: Literal["llava-parquet"] = semantic("llava-parquet")
    """Of stage=convert: Parquet with pictures and conversations -> JSON and files, as LLaVA's trainers read them."""
    decode: bool = semantic(True)
    """Reject records with a picture that cannot be decoded within the limits. false: write pictures unseen."""
    others: Literal["png", "keep", "reject"] = semantic("png")
    """Pictures that are no JPEG, PNG or WebP, whose bytes are always written as they are: `png` writes their pixels as
    PNG, `keep` their bytes, `reject` makes their records rejects."""
    image_prefix: str = semantic("image/")
    """What stands before a picture's name in `image`: the way from the folder that a trainer starts from to its file.
    The folder of the JSON holds `image/`; with an image_folder above it: `ReCap-118K/image/`."""
    prompt: str | list[str] | None = semantic(None)
    """What is asked where a turn of the user is nothing but `<image>`: a text, a list of texts to draw from, or `recap`
    for a list that asks for descriptions. null: such turns stay."""
    prompt_probability: float = semantic(0.8)
    """How often it is the first of several texts; the others share the rest evenly."""
    seed: int = semantic(0)
    """Of that draw, with the index of the record."""
    out: str | None = transient(None)
    """The folder that is made, with the JSON and `image/`. null: `llava` in `data.token_output_dir`."""
    json_name: str | None = transient(None)
    """The JSON in it: `NAME.json` is one list, `NAME.jsonl` a record a line. null: the name of the folder, `.json`."""


@dataclass(frozen=True, kw_only=True)
class MeasureConfig:
    preprocessor: dict[str, Any] = field(default_factory=dict, metadata={"semantic": True, "added_later": False})
    """Of stage=measure: settings of MolmoPreprocessorConfig that say how texts are written (`message_format`,
    `system_prompt`, `prompt_templates`, ...): those of the training, so that its lengths are these."""
    written_by: str | None = semantic(None)
    """Needs no setting here: a digest of them and of the tokenizer, with all that texts depend on."""


@dataclass(frozen=True, kw_only=True)
class FetchConfig:
    format: Literal["webdataset", "jsonl"] = semantic("webdataset")
    """Of stage=fetch: one tar a shard, or one file of JSON lines a shard with its pictures as files beside it."""
    url_field: str | None = semantic(None)
    """The field or column with the URL, or a list of them. null: the first of the usual names that holds one."""
    sha256_field: str | None = semantic(None)
    """The field with the sha256 of the picture's bytes. null: `image_sha256` or `sha256`, where a row has it."""
    check_sha256: bool = semantic(True)
    """Reject pictures whose bytes have another sha256 than their row says, as `sha256_differs`."""
    decode: bool = semantic(True)
    """Reject pictures that cannot be decoded within the limits. false: only their first bytes are looked at."""
    max_bytes: int = semantic(64 * 2**20)
    """Longest picture file that is fetched; one that turns out longer is not read to its end."""
    robots: Literal["respect", "ignore"] = semantic("respect")
    """`respect`: a picture whose answer says noai, noimageai, noindex or noimageindex (X-Robots-Tag) is refused."""
    allow_private: bool = semantic(False)
    """Also ask hosts of this machine and its own network. A list from elsewhere should not be able to."""
    contact: str | None = transient(None)
    """Who is fetching, for the hosts' logs: a mail address or a page. It is sent with every request."""
    connections: int = transient(32)
    """Pictures that a task fetches at once."""
    host_rate: float | None = transient(20.0)
    """Most requests a second to one host by the whole run: each task gets its share. null: no limit."""
    host_connections: int | None = transient(8)
    """Most requests at once to one host by the whole run, at least one by each task. null: no limit."""
    timeout_s: float = transient(20.0)
    """Most seconds of one request, from its connection to the last byte."""
    tries: int = transient(3)
    """Requests for a picture whose host is busy (429, 5xx), silent or cut off, before it is `url_failed`."""
    max_wait_s: float = transient(30.0)
    """Longest wait that a host may ask for (Retry-After). One that asks for more is left alone so long, and its
    pictures are `url_failed`."""
    on_unreachable: Literal["stop", "reject"] = transient("stop")
    """When no host at all can be reached: end the task and reject nothing, or reject pictures as `url_failed`."""


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    format: str | None = semantic(None, added_later=True)
    """Of stage=export, what the dataset data.raw_data_dir becomes: `megatron`, `mds`, `litdata`, `hf`, `jsonl`,
    `liquid`."""
    out: str | None = transient(None)
    """The folder that is made of it. null: `export` in the output directory."""
    shuffle_seed: int | None = semantic(None, added_later=True)
    """Rows in an order drawn by this seed. null: in the order of the dataset."""
    columns: list[str] | None = semantic(None, added_later=True)
    """What is written of a row, where the format has columns: `input_ids`, `modality` (0 text, 1 image), `loss_mask`,
    `key`, `text` (that was kept: text.keep_raw), `spans` (lengths, kinds, grids, roles). null: what the format says."""
    eod: int | Literal["auto", "none", "eos"] = semantic("auto", added_later=True)
    """The id behind each row: one of yours, `none`, or `eos` (the tokenizer's). `auto`: what the format says."""
    bos: int | Literal["none", "bos"] = semantic("none", added_later=True)
    """The id before each row: one of yours, `none`, or `bos` (the tokenizer's)."""
    image_begin: int | None = semantic(None, added_later=True)
    """The id before the codes of a picture. null: none."""
    image_end: int | None = semantic(None, added_later=True)
    """The id behind the codes of a picture. null: none."""
    image_shift: int | None = semantic(None, added_later=True)
    """What is added to codes of pictures, so that they follow the text vocabulary. null: data.img_token_shift of the
    dataset, else the size of its text vocabulary."""
    dtype: Literal["auto", "uint16", "int32", "int64"] = semantic("auto", added_later=True)
    """Of ids. `auto`: the narrowest that the format can hold."""
    file_bytes: int = semantic(64 * 2**20, added_later=True)
    """About so many bytes a file of mds and litdata, and a piece of the others that is written at once."""
    block_size: int | None = semantic(None, added_later=True)
    """Of litdata: chunks for its TokensLoader, whose blocks have so many ids. null: one item a row."""
    style: Literal["auto", "ids", "spans", "liquid"] = semantic("auto", added_later=True)
    """Of jsonl: one list of ids a row, its spans as they are, or Liquid's `data_type`, `text` and `vq_code`."""
    modes: bool = semantic(False, added_later=True)
    """Of megatron: a sequence for each run of texts or pictures of a row, and their modes, 0 and 1."""
    conversations: Literal["reject", "sft"] = semantic("reject", added_later=True)
    """Of liquid: what becomes of conversations. `sft`: each is written as one text, of a type that Liquid lacks."""
    max_length: int | None = semantic(None, added_later=True)
    """Of liquid: warn of pairs that have more ids with their codes (its model_max_length). For datasets with ids."""
    num_shards: int | None = semantic(None, added_later=True)
    """Of liquid: files that the rows are cut into, fewer where there are fewer rows. null: 256 as in Liquid's script,
    fewer where they would have less than 1000 rows, more where they would have over a GiB."""
    source: str | None = semantic(None, added_later=True)
    """Needs no setting here: a digest of the dataset that is exported."""


@dataclass(frozen=True, kw_only=True)
class ClusterConfig:
    kind: Literal["inline", "local", "slurm"] = transient("inline")
    """Where tasks run: this process, processes of this machine, or a SLURM array; `cluster=NAME` sets it."""
    array: str = transient("0")
    """SLURM array notation: `0-100%25` is 101 tasks, 25 at a time. Tasks are alike: the numbers mean nothing else."""
    partition: str | None = transient(None, joined=True)
    """SLURM partition, or several: `a,b`. This and the next six are options of sbatch."""
    account: str | None = transient(None)
    """The account that pays."""
    qos: str | None = transient(None)
    """Quality of service."""
    constraint: str | None = transient(None)
    """Features that nodes must have."""
    reservation: str | None = transient(None)
    """Nodes that are set aside for it."""
    nodelist: str | None = transient(None, joined=True)
    """Nodes that each task gets, all of them: as many as `cluster.nodes`, or fewer."""
    exclude: str | None = transient(None, joined=True)
    """Nodes that no task gets: `node[3-5],node9`. The finishing job keeps to this and the two before as well."""
    dependency: str | None = transient(None)
    """Jobs of yours that come first, as sbatch spells it: `afterok:123`. For this submission, not for later ones."""
    time_min: int = transient(24 * 60)
    """Time limit of a task in minutes; a task that is not done by then comes back and continues."""
    mem_gb: float | None = transient(None)
    """Memory of a task on each of its nodes."""
    cpus_per_task: int = transient(2)
    """CPUs of a process."""
    gpus_per_node: int = transient(0)
    """GPUs of a task on each of its nodes."""
    nodes: int = transient(1)
    """Nodes of a task."""
    tasks_per_node: int = transient(1)
    """Processes of a task on each of its nodes, one for each GPU."""
    job_name: str = transient("hpcdata")
    """What the queue shows."""
    signal_delay_s: int = transient(120)
    """Warning time before the time limit: the task checkpoints and requeues itself."""
    claim_timeout_s: float = transient(120.0)
    """Seconds without a sign of life after which another task takes over a shard."""
    additional_parameters: dict[str, Any] = field(default_factory=dict, metadata={"semantic": False})
    """More sbatch options by their long names."""
    setup: str | list[str] | None = transient(None)
    """Lines of shell, one or a list, that run before Python in each job, the finishing job too: `module load cuda`,
    `source /lab/env.sh`, `export A=1`. After a line `set -e` one that fails ends the job."""
    srun_args: str | list[str] | None = transient(None)
    """More arguments of srun, as one text or a list: `--mpi=none`. The finishing job has them too, but for
    `--container-...`."""
    wrapper: str | list[str] | None = transient(None)
    """Words before Python, as one text or a list: `apptainer exec --nv --bind /data /images/hpcdata.sif`."""
    python: str | None = transient(None)
    """Python of the tasks, where a container has another than the one that launches."""
    stagger_s: float = transient(0.0)
    """Spread the starts of tasks that begin together over so many seconds, for file systems that a thousand starts at
    once would stall."""


@dataclass(frozen=True, kw_only=True)
class FinishConfig:
    combine: bool | None = transient(None)
    """Combine and verify when all shards are there. null: with cluster=slurm, in a small job behind the array (the
    finishing job), which first submits again what is missing."""
    partition: str | None = transient(None, joined=True)
    """Partition of the finishing job, by default that of the tasks."""
    time_min: int | None = transient(None)
    """Time limit of the finishing job in minutes, by default that of the tasks."""
    mem_gb: float | None = transient(None)
    """Memory of the finishing job."""
    additional_parameters: dict[str, Any] = field(default_factory=dict, metadata={"semantic": False})
    """More sbatch options of the finishing job by their long names."""
    mail: str | None = transient(None)
    """Address that gets one mail of SLURM, when the whole run has ended or cannot go on."""
    in_container: bool = transient(False)
    """Run the finishing job in the container of the tasks: `--container-...`, `cluster.wrapper`, `cluster.python`. It
    needs sbatch and squeue there. By default it runs where the launcher's Python does."""
    max_failed: int = transient(2)
    """Stop with a report after so many submissions in a row that failed and got nowhere."""
    max_lost: int = transient(5)
    """Stop after so many in a row that got nowhere because the cluster took the tasks: nodes lost, jobs ended."""
    max_submissions: int = transient(100)
    """Stop after so many submissions in all, also when each one got further."""
    preview: str | None = transient(None)
    """Write a picture of some originals beside their decoded codes to this file name in the output directory."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    data: DataConfig = field(default_factory=DataConfig)
    text: TextConfig = field(default_factory=TextConfig)
    image: ImageConfig = field(default_factory=ImageConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    loader: LoaderConfig = field(default_factory=LoaderConfig)
    copy: CopyConfig = field(default_factory=CopyConfig)
    measure: MeasureConfig = field(default_factory=MeasureConfig)
    fetch: FetchConfig = field(default_factory=FetchConfig)
    export: ExportConfig = field(default_factory=ExportConfig)
    convert: ConvertConfig = field(default_factory=ConvertConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    finish: FinishConfig = field(default_factory=FinishConfig)
    stage: str = semantic("tokenize", added_later=True)
    """What is done to the samples: `tokenize`, `copy` (raw records to tars or JSON lines: resharded, filtered),
    `convert` (tables with pictures to JSON and files), `fetch` (the pictures of a list of URLs), `measure` (sizes of
    pictures and lengths of texts, for training on raw records), or `export` (a dataset of tokens in the form that
    another system's loader reads)."""
    estimate: bool = transient(False)
    """Say what the run will cost, from a timed sample of its inputs, and start nothing."""
    estimate_s: float = transient(60.0)
    """Seconds of that sample."""

    def semantic_fields(self, *, with_added: bool = False) -> dict[str, Any]:
        """`{"data.resolution": 256, ...}`: what may change the bytes that are written (paths enter by their contents).

        with_added: also fields that were added later and have their default, which fingerprints leave out.
        """
        return {
            name: value
            for name, value, item in _items(self)
            if item.metadata["semantic"] and (with_added or not item.metadata["added_later"] or value != item.default)
        }


def leaves(config: Any) -> Iterator[tuple[str, Any, bool]]:
    """(key, value, whether it is semantic) of every key."""
    for name, value, item in _items(config):
        yield name, value, item.metadata["semantic"]


def _items(config: Any, prefix: str = "") -> Iterator[tuple[str, Any, dataclasses.Field[Any]]]:
    """(key, value, field) of every key."""
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if dataclasses.is_dataclass(value):
            yield from _items(value, f"{prefix}{item.name}.")
        else:
            yield f"{prefix}{item.name}", value, item
