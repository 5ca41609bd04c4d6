"""The operator's file of engines and models, and what is read of model files."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.providers import local_file
from app.providers.gguf import GgufHead, parse_head
from app.providers.local_file import read_engines_file
from app.providers.local_host import LLAMA_CPP, LocalHost, LocalHostError
from app.providers.local_loader import load_local_host

ROOT = Path(__file__).parents[2]
SECRETS = {"PATH": "/bin", "MODELPORT_ADMIN_KEY": "canary", "CUDA_VISIBLE_DEVICES": "0", "HOME": "/root"}


def load(folder: Path, text: str | None, *, advertise_host: str = "127.0.0.1") -> LocalHost:
    file = folder / "engines.toml"
    if text is not None:
        file.write_text(text)
    return load_local_host(
        engines_file=None if text is None else file,
        data_dir=folder,
        node_id="nod_test",
        advertise_host=advertise_host,
        environment=SECRETS,
    )


def gguf(**values: str | int) -> bytes:
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, len(values) + 2)
    texts = struct.pack("<IQ", 8, 2) + 2 * (struct.pack("<Q", 2) + b"en")
    head += _text("general.tags") + struct.pack("<I", 9) + texts
    for key, value in values.items():
        head += _text(key.replace("__", "."))
        head += struct.pack("<I", 8) + _text(value) if isinstance(value, str) else struct.pack("<II", 4, value)
    return head + _text("tokenizer.ggml.model") + b"\xff" * 100


def _text(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def _example_of_the_docstring() -> str:
    text = str(local_file.__doc__).split("what the file says:")[1].split("Placeholders")[0]
    return "\n".join(line.removeprefix("    ") for line in text.splitlines())


def _example_of_the_page() -> str:
    return (ROOT / "docs/providers/local.md").read_text().split("```toml")[1].split("```")[0]


@pytest.mark.parametrize("example", [_example_of_the_docstring, _example_of_the_page])
def test_the_documented_example_is_a_valid_file(tmp_path: Path, example: Callable[[], str]) -> None:
    file = tmp_path / "engines.toml"
    file.write_text(example().replace("b179c952…", "b" * 64))
    tables = read_engines_file(file)
    assert set(tables.models) == {"qwen3-8b", "tiny"}
    assert tables.engines["vllm"].arguments["--dtype"].values == ["auto", "bfloat16"]
    assert tables.llama.max_slots == 8


def test_directories_are_scanned_for_what_their_engine_can_serve(tmp_path: Path) -> None:
    files, folders = tmp_path / "files", tmp_path / "folders"
    files.mkdir()
    (folders / "Qwen3-8B").mkdir(parents=True)
    (folders / "not-a-model").mkdir()
    (folders / "Qwen3-8B" / "config.json").write_text("{}")
    (files / "tiny.gguf").write_bytes(gguf(general__architecture="llama", llama__context_length=8192))
    for other in (
        "part-00001-of-00002.gguf",
        "part-00002-of-00002.gguf",
        "mmproj-x.gguf",
        "notes.txt",
        "bad name.gguf",
    ):
        (files / other).write_bytes(b"")
    found = load(
        tmp_path,
        """
        model_directories = [{ path = "files" }, { path = "folders", engine = "vllm" }]
        [models.tiny]
        path = "files/tiny.gguf"
        title = "Named"
        [engines.vllm]
        command = ["vllm", "{model}", "{port}"]
        inherit_environment = ["CUDA_VISIBLE_DEVICES", "NOT_SET"]
        environment = { KEY = "{api_key}" }
        """,
    )
    assert set(found.models) == {"tiny", "part-00001-of-00002", "Qwen3-8B"}
    tiny = found.models["tiny"]
    assert (tiny.title, tiny.context_length, tiny.path) == ("Named", 8192, files / "tiny.gguf")
    assert found.engines["vllm"].environment == {"CUDA_VISIBLE_DEVICES": "0", "KEY": "{api_key}"}
    assert found.environment == {"PATH": "/bin"}
    assert "canary" not in repr(found)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("models = 3", "models"),
        ("[models.a]", "models.a.path"),
        ('[models.a]\npath = "missing.gguf"', "does not exist"),
        ('[models."../a"]\npath = "."', "models"),
        ('[models.a]\npath = "."\nengine = "vllm"', "no engine 'vllm'"),
        ('[models.a]\npath = "."\nsha256 = "' + "a" * 64 + '"', "sha256 is for a file"),
        ('[models.a]\npath = "."\nsha256 = "short"', "sha256"),
        ('[models.a]\npath = "."\ncontext_length = "4096"', "context_length"),
        ('model_directories = [{ path = "nowhere" }]', "no directory"),
        ("[engines.vllm]\ncommand = []", "command"),
        ('[engines.vllm]\ncommand = ["x", "{api_key}"]', "{api_key} is no placeholder here; put the key into"),
        ('[engines.vllm]\ncommand = ["x", "{home}"]', "{home} is no placeholder"),
        ('[engines.vllm]\ncommand = ["x"]\ninherit_environment = ["MODELPORT_ADMIN_KEY"]', "Modelport's own"),
        ('[engines.vllm]\ncommand = ["x"]\narguments = { "--a" = { type = "text" } }', "type"),
        ('[engines.vllm]\ncommand = ["x"]\narguments = { "a b" = { type = "flag" } }', "arguments"),
        ('[engines.vllm]\ncommand = ["x"]\narguments = { "--a" = { type = "choice", values = ["/etc"] } }', "values"),
        ('[engines."llama.cpp"]\ncommand = ["x"]', "llama.command"),
        ('[engines."llama.cpp"]\nmax_slots = 65', "max_slots"),
        ("surprise = 1", "surprise"),
        ("this is not toml", "engines.toml"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_clear_line(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(LocalHostError) as raised:
        load(tmp_path, text)
    assert complaint in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_file_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(LocalHostError, match="No such file"):
        read_engines_file(tmp_path / "missing.toml")


def test_the_operator_bounds_the_built_in_engine(tmp_path: Path) -> None:
    host = load(tmp_path, '[engines."llama.cpp"]\nmax_slots = 3\nmax_context_length = 1000')
    if LLAMA_CPP not in host.engines:
        pytest.skip("needs the demo packages: requirements-demo.lock")
    rules = host.engines[LLAMA_CPP].arguments
    assert (rules["--parallel"].maximum, rules["--ctx-size"].maximum) == (3, 1000)


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "224.0.0.1", "", "a b"])
def test_an_address_that_others_cannot_use_is_refused(tmp_path: Path, address: str) -> None:
    with pytest.raises(LocalHostError, match="MODELPORT_ADVERTISE_HOST"):
        load(tmp_path, None, advertise_host=address)


@pytest.mark.usefixtures("_no_name_exists")
def test_a_name_that_does_not_resolve_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LocalHostError, match=r"MODELPORT_ADVERTISE_HOST: .* is no address and does not resolve"):
        load(tmp_path, None, advertise_host="no.such.host.invalid")


def test_a_name_is_resolved_once_to_the_address_that_is_bound(tmp_path: Path) -> None:
    assert load(tmp_path, None, advertise_host="localhost").address in {"127.0.0.1", "::1"}


def test_a_model_file_says_what_it_is() -> None:
    data = gguf(general__architecture="llama", general__name="Tiny", llama__context_length=8192)
    assert parse_head(data) == GgufHead("Tiny", 8192)


@given(st.binary(max_size=200), st.integers(0, 300))
def test_no_file_breaks_the_reading(tail: bytes, kept: int) -> None:
    whole = gguf(general__architecture="llama", general__name="Tiny", llama__context_length=8192)
    for data in (tail, whole[:kept] + tail, b"GGUF" + struct.pack("<I", 3) + tail):
        head = parse_head(data)
        assert head.context_length is None or head.context_length > 0
