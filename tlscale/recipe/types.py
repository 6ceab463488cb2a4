"""What a user may write in a recipe. Names follow transformers, PEFT and datasets.

A recipe says what is meant; `tlscale.planning` settles everything else. Options of a strategy are typed by
the strategy's own file, not here.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, model_validator

from tlscale.recipe.base import Fraction, Frozen, Positive
from tlscale.recipe.carry import AskedCarry
from tlscale.recipe.evaluate import Evaluate, Report
from tlscale.recipe.hardware import Hardware
from tlscale.recipe.masking import Masking
from tlscale.recipe.pictures import Augmentation, ImageProcessor
from tlscale.recipe.publish import Publish
from tlscale.recipe.search import Sweep
from tlscale.recipe.train import Train

Task = Literal[
    "causal-lm", "masked-lm", "sequence-classification", "image-classification", "audio-classification",
    "sentence-embedding",
]  # fmt: skip
WITHOUT_TEXT: tuple[Task, ...] = ("image-classification", "audio-classification")
CLASSIFICATION: tuple[Task, ...] = ("sequence-classification", *WITHOUT_TEXT)
Quantization = Literal["none", "nf4", "fp4", "int8"]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]
ROWS_AT_ONCE = 10_000
TaskName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]


class Model(Frozen):
    """The base model, and how it is loaded."""

    model_name_or_path: str = Field(
        min_length=1, description="A Hub id, a folder, or builtin:NAME for a model in the package."
    )
    revision: str | None = Field(
        None, description="Branch, tag or commit on the Hub; pin a commit for reproducible runs."
    )
    task: Task = Field(description="What the model is used for.")
    init: Literal["pretrained", "scratch"] = Field(
        "pretrained", description="scratch keeps the architecture and tokenizer, not the weights."
    )
    quantization: Quantization = Field(
        "none", description="Frozen base weights in 4 (nf4, fp4) or 8 (int8) bits, by bitsandbytes."
    )
    dtype: Dtype = Field(
        "auto",
        description="Precision of computation; auto: bfloat16 on a GPU that has it, else float32.",
    )
    pooling: Literal["auto", "mean", "cls", "last"] = Field(
        "auto", description="How token states become one vector, where a head needs one."
    )
    chat_template: str | None = Field(
        None, description="A Jinja file to use in place of the tokenizer's own chat template."
    )
    config: dict[str, JsonValue] = Field(
        default_factory=dict, description="Fields of the model's config.json to set otherwise, by name."
    )
    image_processor: ImageProcessor | None = Field(
        None, description="How pictures are prepared, where the base's own files don't say it rightly."
    )
    trust_remote_code: bool = Field(
        False, description="Run Python code from the model's repository; needs a commit in revision."
    )

    @model_validator(mode="after")
    def _remote_code_is_pinned(self) -> Model:
        commit = self.revision or ""
        pinned = len(commit) == 40 and all(c in "0123456789abcdef" for c in commit)
        if self.trust_remote_code and not pinned:
            raise ValueError("trust_remote_code needs revision to be a full 40-digit commit")
        return self


class Source(Frozen):
    """Rows of data: where they are, and which columns mean what.

    A column may be a name (`text: body`) or a template over several (`prompt: "{question}\\n"`).
    """

    path: str | None = Field(
        None,
        description="csv, tsv, json, jsonl, parquet, txt, npz, a folder of images or WAV files by class, a "
        "zip of one, or builtin:NAME.",
    )
    hub: str | None = Field(None, description="A data set id on the Hub.")
    name: str | None = Field(None, description="Configuration of the Hub data set.")
    revision: str | None = Field(None, description="Commit of the Hub data set.")
    split: str = Field("train", description="Split of the Hub data set.")
    text: str | None = Field(None, description="Column of text.")
    label: str | None = Field(None, description="Column of class names or numbers.")
    image: str | None = Field(None, description="Column of image paths, bytes or pixel arrays.")
    audio: str | None = Field(None, description="Column of paths or bytes of WAV files.")
    prompt: str | None = Field(None, description="Column of prompts; not trained on.")
    completion: str | None = Field(None, description="Column of completions; trained on.")
    messages: str | None = Field(None, description="Column of chat messages (role, content).")
    anchor: str | None = Field(None, description="Column of first texts of similar pairs.")
    positive: str | None = Field(None, description="Column of second texts of similar pairs.")
    words: dict[str, str] | None = Field(
        None,
        min_length=1,
        description="Word in a mask's place for each value of completion; by default the value itself.",
    )
    split_at: str | None = Field(
        None,
        description="Cuts text into prompt and completion after the first occurrence of this string.",
    )
    document: Literal["line", "file"] = Field(
        "line", description="Whether a txt file is one document a line or one document in all."
    )
    separator: str | None = Field(
        None, min_length=1, description="String between the documents of a txt file, such as <|endoftext|>."
    )
    span: tuple[Fraction, Fraction] = Field(
        (0.0, 1.0), description="The part of the rows to use, in file order; of one document, of its text."
    )
    limit: Positive | None = Field(None, description="At most so many rows, sampled by the seed.")
    per_class: Positive | None = Field(
        None, description="So many rows of each label, sampled by the seed: few-shot training."
    )
    streaming: bool = Field(
        False,
        description="Training rows too many to read first: read in order, a part at a time, while training "
        "goes on. path is a jsonl, parquet or txt file, or a folder of them.",
    )
    shuffle_buffer: Positive | None = Field(
        None,
        description="With streaming, how many rows are read, shuffled and kept on disk together; 10,000 "
        "unless told.",
    )
    license: str | None = Field(
        None, description="Licence of the rows by the Hub's name, for the card; a Hub data set has its own."
    )
    tasks: dict[TaskName, Source] | None = Field(
        None,
        min_length=1,
        description="In place of path and hub: several tasks by name, each with its own labelled rows and "
        "its own head.",
    )

    @model_validator(mode="after")
    def _one_place(self) -> Source:
        if (self.path, self.hub, self.tasks).count(None) != 2:
            raise ValueError("give exactly one of path, hub and tasks")
        if self.tasks is not None and not self._is_only_tasks():
            raise ValueError("tasks stands alone; path, columns, span and limits belong to each task")
        words = tuple((self.words or {}).values())
        if len(set(words)) < len(words):
            raise ValueError("words has one word for two values; each needs its own to be told apart")
        if self.separator is not None and self.document == "file":
            raise ValueError("a file is one document or several with a separator; give one of the two")
        if self.span[0] >= self.span[1]:
            raise ValueError("span must be [start, end] with start < end")
        if self.shuffle_buffer is not None and not self.streaming:
            raise ValueError("shuffle_buffer goes with streaming; other rows are shuffled as a whole")
        if self.streaming:
            self._fit_for_streaming()
        return self

    @property
    def rows_at_once(self) -> int:
        """Of a streaming source, how many rows are read and shuffled together."""
        return self.shuffle_buffer or ROWS_AT_ONCE

    def _fit_for_streaming(self) -> None:
        if self.path is None:
            raise ValueError("streaming reads files; give path")
        chosen = [name for name in ("limit", "per_class", "separator") if getattr(self, name) is not None]
        chosen += ["span"] if self.span != (0.0, 1.0) else []
        chosen += ["document"] if self.document == "file" else []
        if chosen:
            raise ValueError(
                f"{chosen[0]} needs all rows at once, which streaming never has; leave one out"
            )

    def _is_only_tasks(self) -> bool:
        fields = type(self).model_fields
        alone = all(getattr(self, n) == f.default for n, f in fields.items() if n != "tasks")
        return alone and all(part.tasks is None and not part.streaming for part in self.parts)

    @property
    def parts(self) -> tuple[Source, ...]:
        """The sources that this one is made of: those of its tasks, or itself."""
        return tuple(self.tasks.values()) if self.tasks is not None else (self,)


class Data(Frozen):
    """The rows to learn from, to choose by, to be judged on, and not to forget."""

    train: Source | None = Field(None, description="Rows to train on.")
    validation: Source | None = Field(None, description="Rows for evaluation inside training.")
    test: Source | None = Field(None, description="Rows the base and the result are scored on.")
    retention: Source | None = Field(
        None, description="Rows of what the base could do before, to measure forgetting."
    )
    replay: Source | None = Field(
        None, description="Rows of what the base could do before, to hold on to in training."
    )
    unlabelled: Source | None = Field(
        None, description="Rows of the target domain; labels they may have are never looked at."
    )
    labels: tuple[str, ...] | None = Field(
        None, description="Class names in order; by default those of the training rows, sorted."
    )
    test_split: Fraction = Field(0.1, description="Share of train held out as test where no test is given.")
    validation_split: Fraction = Field(
        0.0, description="Share of train held out for validation where none is given."
    )
    max_length: Positive | None = Field(
        None, description="Longest sequence in tokens; by default the model's own limit, at most 1024."
    )
    packing: bool = Field(
        False,
        description="Several short training examples in one row of max_length, kept apart: less padding. "
        "A row of a batch is then a packed row.",
    )
    overflow: Literal["cut", "drop", "error"] = Field(
        "cut", description="What becomes of longer rows; always counted and reported."
    )
    loss_on: Literal["completion", "all"] = Field(
        "completion", description="Whether prompts and user turns are trained on too."
    )
    masking: Masking | None = Field(
        None, description="How tokens are hidden from a masked language model, where it differs."
    )
    augmentation: Augmentation | None = Field(None, description="How pictures to train on vary by epoch.")


class StageRecipe(Frozen):
    """One written-out stage: a strategy with what differs from the recipe's own settings."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$", description="Lower-case name of the stage.")
    starts_from: str | None = Field(
        None, description="base or an earlier stage; by default the stage before."
    )
    carry: AskedCarry = Field(
        "auto",
        description="What becomes of the adapter of the stage that this one starts from: keep trains it "
        "on; merge adds it to the base, and a new one begins; fresh leaves it and its head behind, and a "
        "new one begins on the base that it had; auto keeps one of the same kind and merges any other.",
    )
    strategy: dict[str, JsonValue] = Field(description="kind and its options.")
    train: dict[str, JsonValue] = Field(
        default_factory=dict, description="Settings of train that differ in this stage."
    )
    data: Source | None = Field(None, description="Training rows of this stage, in place of data.train.")


class Recipe(Frozen):
    """One experiment, from data to a verified result."""

    version: Literal[1] = Field(description="Version of the recipe language.")
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="Name of the run directory.")
    output_dir: str | None = Field(None, description="Run directory; by default runs/NAME.")
    seed: Annotated[int, Field(ge=0)] = Field(0, description="Seed of everything random.")
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        (), description="Repeat the run once per seed, each in its own directory."
    )
    model: Model
    data: Data = Field(default_factory=lambda: Data())
    strategy: dict[str, Any] | None = Field(
        None, description="kind and its options; see the strategy reference."
    )
    stages: tuple[StageRecipe, ...] = Field((), description="Written-out stages in place of strategy.")
    train: Train = Field(default_factory=lambda: Train())
    hardware: Hardware = Field(default_factory=lambda: Hardware())
    evaluate: Evaluate = Field(default_factory=lambda: Evaluate())
    report: Report = Field(default_factory=lambda: Report())
    launch: dict[str, JsonValue] | None = Field(
        None, description="How the run is started on a cluster; no part of what it does."
    )
    publish: Publish | None = None
    sweep: Sweep | None = Field(None, description="The search that `tlscale sweep` makes.")

    @model_validator(mode="after")
    def _strategy_or_stages(self) -> Recipe:
        if (self.strategy is None) == (not self.stages):
            raise ValueError("give exactly one of strategy and stages")
        return self

    @model_validator(mode="after")
    def _what_is_judged_is_there(self) -> Recipe:
        data = self.data
        if self.evaluate.split == "validation" and data.validation is None and not data.validation_split:
            raise ValueError("evaluate.split: validation needs data.validation or data.validation_split")
        if "target_only" in self.evaluate.against and len(self.stages) < 2:
            raise ValueError(
                "evaluate.against: target_only is the last of several stages without the others"
            )
        if "source_only" in self.evaluate.against and data.unlabelled is None:
            raise ValueError(
                "evaluate.against: source_only is the same training without terms on data.unlabelled, "
                "which is missing"
            )
        return self
