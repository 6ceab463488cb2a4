"""Who answers tasks: each predictor against the plain model, or against transformers' own pipeline."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.neighbors import NearestCentroid
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertTokenizerFast,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    CLIPTokenizerFast,
    pipeline,
)

from tests.integration import minilm, tiny
from tlscale import plugins
from tlscale.errors import TlscaleError, UsageError
from tlscale.evaluation.predictors.setup import Setup
from tlscale.evaluation.requests import ChoiceScores, Generated
from tlscale.evaluation.tasks.find import find
from tlscale.evaluation.tasks.prepare import Prepared, Setting, prepare
from tlscale.evaluation.tasks.run import Predictor
from tlscale.evaluation.tasks.task import Document, Rows, Task
from tlscale.planning.scoring import plan_scoring
from tlscale.recipe.load import check

LABELS = ("red", "green", "blue", "black")
ROWS = [
    {"text": f"the {thing} is {colour}", "label": colour}
    for thing in tiny.THINGS[:4]
    for colour in LABELS[:3]
]


def setup(model: Path | str, predictor: str, **options: Any) -> Setup:
    """What `tlscale eval` would make of a model."""
    raw = {
        "version": 1, "name": "x", "model": {"model_name_or_path": str(model), "task": "causal-lm"},
        "strategy": {"kind": "none"}, "evaluate": {"predictor": predictor}, "hardware": {"device": "cpu"},
    }  # fmt: skip
    plan = plan_scoring(check(raw, source="test"), offline=True)
    return Setup(
        model=plan.recipe.model, facts=plan.facts, world=plan.world, seed=0, device=torch.device("cpu"),
        module=None, processor=None, size=5, max_length=plan.max_length, options=options,
    )  # fmt: skip


def predictor(model: Path | str, name: str, **options: Any) -> Predictor:
    made: Predictor = plugins.load("tlscale.predictors", name)(setup(model, name, **options))
    return made


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    task = Task(
        "colours", "", "classification", test=(Rows(path=str(path)),), train=(Rows(path=str(path)),),
        metrics=("acc",), document=lambda row: Document(text=row["text"], answer=row["label"]),
        labels=LABELS, prompt=lambda text: f"{text} : what colour ?", hypothesis="the colour is {label}",
        template="a {label}",
    )  # fmt: skip
    made = prepare(task, Setting(calibrations=()), needs_train=False)
    train = tuple(item.document for item in made.items)
    return replace(made, train=train)


def scores(by: Predictor, asked: Prepared) -> torch.Tensor:
    """Probabilities [items, classes]."""
    found = dict(by.answer(asked, range(len(asked.items))))
    rows = [found[at][0] for at in range(len(asked.items))]
    assert all(isinstance(row, ChoiceScores) for row in rows)
    return torch.tensor([row.logprobs for row in rows]).softmax(dim=-1)


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT tokenizer of few words."""
    folder = tmp_path_factory.mktemp("words")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", *tiny.WORDS[4:]]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    BertTokenizerFast(vocab={word: at for at, word in enumerate(vocabulary)}).save_pretrained(folder)
    return folder


def bert(words: Path, folder: Path, kind: Any, **more: Any) -> Path:
    torch.manual_seed(1)
    config = BertConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        vocab_size=len(AutoTokenizer.from_pretrained(words)), max_position_embeddings=64, **more,
    )  # fmt: skip
    model = kind(config)
    for parameter in model.parameters():
        parameter.data.mul_(3)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(words).save_pretrained(folder)
    return folder


def test_entailment_is_that_of_the_zero_shot_pipeline(
    words: Path, tmp_path: Path, prepared: Prepared
) -> None:
    names = {0: "contradiction", 1: "neutral", 2: "entailment"}
    folder = bert(
        words,
        tmp_path,
        BertForSequenceClassification,
        id2label=names,
        label2id={n: i for i, n in names.items()},
    )
    oracle = pipeline("zero-shot-classification", model=str(folder), device=-1)
    said = [oracle(row["text"], list(LABELS), hypothesis_template="the colour is {}") for row in ROWS]
    expected = torch.tensor(
        [[dict(zip(one["labels"], one["scores"], strict=True))[name] for name in LABELS] for one in said]
    )
    found = scores(predictor(folder, "nli"), prepared)
    assert torch.allclose(found, expected.to(found.dtype), atol=1e-5)
    assert setup(folder, "nli").model.task == "sequence-classification"


def test_a_masked_model_fills_in_the_label(words: Path, tmp_path: Path, prepared: Prepared) -> None:
    folder = bert(words, tmp_path, BertForMaskedLM)
    oracle = pipeline("fill-mask", model=str(folder), targets=list(LABELS), device=-1)
    expected = []
    for row in ROWS:
        said = {one["token_str"]: one["score"] for one in oracle(f"{row['text']} : what colour ? [MASK].")}
        expected.append([said[name] / sum(said.values()) for name in LABELS])
    found = scores(predictor(folder, "masked-lm"), prepared)
    assert torch.allclose(found, torch.tensor(expected, dtype=found.dtype), atol=1e-5)


def test_clip_is_that_of_its_own_forward_pass(tmp_path: Path, data_root: Path) -> None:
    words = [
        *("<|startoftext|>", "<|endoftext|>"),
        *(f"{letter}</w>" for letter in "abcdefghijklmnopqrstuvwxyz-"),
        *"abcdefghijklmnopqrstuvwxyz-",
    ]
    tokenizer = CLIPTokenizerFast(vocab={word: at for at, word in enumerate(words)}, merges=[])
    images = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    torch.manual_seed(0)
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config={**small, "vocab_size": len(words), "bos_token_id": 0, "eos_token_id": 1,
                     "pad_token_id": 1},
        vision_config={**small, "image_size": 32, "patch_size": 8}, projection_dim=16,
    )  # fmt: skip
    model = CLIPModel(config).eval()
    model.save_pretrained(tmp_path)
    CLIPProcessor(images, tokenizer).save_pretrained(tmp_path)
    asked = prepare(find("fashion_mnist"), Setting(max_rows=6, folder=data_root))
    found = scores(predictor(tmp_path, "clip"), asked)
    assert found.shape == (6, 10)
    processor = CLIPProcessor.from_pretrained(tmp_path)
    texts = [f"a photo of a {name}" for name in asked.labels]
    pictures = [torch.from_numpy(item.document.image).expand(3, -1, -1) for item in asked.items]
    inputs = processor(text=texts, images=pictures, padding=True, return_tensors="pt")
    with torch.inference_mode():
        expected = model(**inputs).logits_per_image.softmax(dim=-1)
    assert torch.allclose(found, expected.to(found.dtype), atol=1e-4)


def test_class_means_are_those_of_scikit_learn_and_neighbours_agree(prepared: Prepared) -> None:
    folder = minilm.folder()
    by = predictor(folder, "class-mean")
    assert by.learns
    only = replace(prepared, labels=LABELS[:3])
    found = scores(by, only).argmax(dim=-1).tolist()
    from tlscale.evaluation.predictors.embedding import embedder

    with torch.inference_mode():
        vectors = embedder(setup(folder, "class-mean"))([row["text"] for row in ROWS]).numpy()
    answers = [LABELS.index(row["label"]) for row in ROWS]
    assert found == NearestCentroid().fit(vectors, answers).predict(vectors).tolist()
    assert scores(predictor(folder, "knn", neighbours=1), only).argmax(dim=-1).tolist() == answers
    with pytest.raises(UsageError, match=r"neighbours: 0 is not a whole number above 0"):
        predictor(folder, "knn", neighbours=0)


def test_real_intents_are_recognised_without_training(data_root: Path) -> None:
    asked = prepare(find("banking77"), Setting(max_rows=300, folder=data_root))
    found = scores(predictor(minilm.folder(), "embedding"), asked).argmax(dim=-1).tolist()
    right = [item.document.answer for item in asked.items]
    assert sum(a == b for a, b in zip(found, right, strict=True)) / 300 >= 0.55


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    """A server of completions whose answers the test decides on."""
    running = []

    def start(answer: Callable[[dict[str, Any], BaseHTTPRequestHandler], None]) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                answer(body, self)

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        running.append((server, thread))
        return f"http://127.0.0.1:{server.server_address[1]}/v1"

    yield start
    for server, thread in running:
        server.shutdown()
        server.server_close()
        thread.join()


def reply(handler: BaseHTTPRequestHandler, content: Any, status: int = 200) -> None:
    data = json.dumps(content).encode()
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data)


def completions(model: Any, tokenizer: Any) -> Callable[[dict[str, Any], BaseHTTPRequestHandler], None]:
    """What a server of completions does with a real model: echoed log-probabilities, greedy texts."""

    def answer(body: dict[str, Any], handler: BaseHTTPRequestHandler) -> None:
        cut = tokenizer(body["prompt"], return_offsets_mapping=True, return_tensors="pt")
        ids, offsets = cut["input_ids"], cut["offset_mapping"][0].tolist()
        if not body.get("echo"):
            made = model.generate(ids, max_new_tokens=body["max_tokens"], do_sample=False)
            return reply(handler, {"choices": [{"text": " " + tokenizer.decode(made[0, ids.shape[1] :])}]})
        with torch.inference_mode():
            table = model(ids).logits[0].float().log_softmax(dim=-1)
        own = [None, *(float(table[at, ids[0, at + 1]]) for at in range(ids.shape[1] - 1))]
        best = [None, *({"x": float(row.max())} for row in table[:-1])]
        said = {"text_offset": [start for start, _ in offsets], "token_logprobs": own, "top_logprobs": best}
        return reply(handler, {"choices": [{"text": "", "logprobs": said}]})

    return answer


def test_an_endpoint_answers_like_the_model_behind_it(
    serve: Callable[..., str], tmp_path: Path, prepared: Prepared
) -> None:
    from transformers import AutoModelForCausalLM

    folder = tiny.llama(tmp_path)
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(folder).eval(),
        AutoTokenizer.from_pretrained(folder),
    )
    address = serve(completions(model, tokenizer))
    there, here = (
        scores(predictor(address, "endpoint"), prepared),
        scores(predictor(folder, "lm"), prepared),
    )
    assert torch.allclose(there, here, atol=1e-4)
    task = replace(prepared.task, kind="generation", max_new_tokens=3, stop=()) if prepared.task else None
    assert task is not None
    asked = prepare(replace(task, document=lambda row: Document(query=row["text"], answer="x")), Setting())
    for _, (made,) in predictor(address, "endpoint").answer(asked, [0, 1]):
        assert isinstance(made, Generated)
        assert made.text


STALLED = {"timeout": 0.5, "retries": 0}


def drip(body: Any, handler: BaseHTTPRequestHandler) -> None:
    """One byte now and then, so that no single read takes long."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    for _ in range(20):
        try:
            handler.wfile.write(b" ")
            handler.wfile.flush()
        except OSError:
            return
        time.sleep(0.2)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda body, handler: time.sleep(2), r"no answer after 1 tries of 0\.5 s"),
        (drip, r"no answer after 1 tries of 0\.5 s"),
        (lambda body, handler: reply(handler, {"error": "too long"}, 400), "HTTP 400: .*too long"),
        (
            lambda body, handler: reply(handler, {"error": "busy"}, 503),
            r"no answer after 1 tries.*HTTP 503",
        ),
        (lambda body, handler: reply(handler, {"hello": 1}), "not an answer of a completions endpoint"),
        (
            lambda body, handler: reply(handler, {"choices": [{"text": "x"}]}),
            "no log-probabilities of the prompt",
        ),
    ],
    ids=["stalls", "drips", "refuses", "busy", "other", "no-logprobs"],
)
def test_an_endpoint_that_fails_is_named(
    answer: Any, said: str, serve: Callable[..., str], prepared: Prepared
) -> None:
    by = predictor(serve(answer), "endpoint", **STALLED)
    with pytest.raises(TlscaleError, match=said) as failed:
        list(by.answer(prepared, [0]))
    assert "http://127.0.0.1" in str(failed.value)


def test_a_busy_endpoint_is_asked_again_and_gets_the_key(
    serve: Callable[..., str], prepared: Prepared
) -> None:
    seen: list[str | None] = []

    def answer(body: dict[str, Any], handler: BaseHTTPRequestHandler) -> None:
        seen.append(handler.headers["Authorization"])
        if len(seen) == 1:
            return reply(handler, {}, 429)
        said = {"text_offset": [0], "token_logprobs": [None], "top_logprobs": [None]}
        return reply(handler, {"choices": [{"logprobs": said}]})

    made = replace(setup(serve(answer), "endpoint", parallel=1), secret=lambda name: f"value of {name}")
    by = plugins.load("tlscale.predictors", "endpoint")(made)
    list(by.answer(prepared, [0]))
    assert len(seen) == 1 + len(LABELS)
    assert set(seen) == {"Bearer value of OPENAI_API_KEY"}
