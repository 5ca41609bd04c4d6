"""/docs: the OpenAPI document as one HTML page that loads nothing, from nowhere, and runs no script."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from app.kit import json

HEADERS = {"content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"}

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
details { border: 1px solid #8886; border-radius: 6px; margin: .4rem 0; padding: .4rem .8rem; }
summary { cursor: pointer; }
code, pre { font: 14px/1.5 ui-monospace, monospace; }
pre { overflow-x: auto; background: #8881; padding: .6rem; border-radius: 6px; }
table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; vertical-align: top; padding: .2rem .8rem .2rem 0; border-bottom: 1px solid #8883; }
.method { display: inline-block; min-width: 4.5rem; font-weight: 600; }
"""
_METHODS = ("get", "post", "put", "patch", "delete")


def render(document: Mapping[str, Any]) -> bytes:
    """The page; everything in it is escaped text of the document."""
    info = document["info"]
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width'>",
        f"<title>{escape(info['title'])} API</title><style>{_STYLE}</style></head><body>",
        f"<h1>{escape(info['title'])} {escape(info['version'])}</h1><p>{escape(info.get('description', ''))}</p>",
        "<p>For tools: <a href='openapi.json'>openapi.json</a></p>",
        *_sections(document),
        "<h2>Schemas</h2>",
        *(_schema(name, schema) for name, schema in sorted(document["components"]["schemas"].items())),
        "</body></html>",
    ]
    return "\n".join(parts).encode()


def _sections(document: Mapping[str, Any]) -> Iterator[str]:
    for tag in document["tags"]:
        yield f"<h2>{escape(tag['name'])}</h2>"
        for path, methods in document["paths"].items():
            for method in _METHODS:
                if tag["name"] in methods.get(method, {}).get("tags", ()):
                    yield _operation(path, method, methods[method], document["components"])


def _operation(path: str, method: str, operation: Mapping[str, Any], components: Mapping[str, Any]) -> str:
    summary = f"<span class='method'>{method.upper()}</span> <code>{escape(path)}</code>"
    return (
        f"<details id='{escape(operation['operationId'])}'><summary>{summary}</summary>"
        f"<p>{escape(operation.get('description', ''))}</p>"
        f"{_parameters(operation)}{_body(operation)}{_responses(operation, components)}</details>"
    )


def _parameters(operation: Mapping[str, Any]) -> str:
    rows = [
        f"<tr><td><code>{escape(one['name'])}</code></td><td>{escape(one['in'])}</td>"
        f"<td>{escape(one.get('description', ''))}</td></tr>"
        for one in operation.get("parameters", ())
    ]
    return f"<table><tr><th>Parameter</th><th>In</th><th></th></tr>{''.join(rows)}</table>" if rows else ""


def _body(operation: Mapping[str, Any]) -> str:
    contents = operation.get("requestBody", {}).get("content", {})
    return "".join(f"<p>Body: {_reference(content.get('schema', {}))}</p>" for content in contents.values())


def _responses(operation: Mapping[str, Any], components: Mapping[str, Any]) -> str:
    rows = []
    for status, named in sorted(operation["responses"].items()):
        response = components["responses"][_last(named)] if "$ref" in named else named
        schemas = (_reference(content.get("schema", {})) for content in response.get("content", {}).values())
        rows.append(
            f"<tr><td>{escape(status)}</td><td>{escape(response['description'])}</td><td>{''.join(schemas)}</td></tr>"
        )
    return f"<table><tr><th>Status</th><th></th><th>Body</th></tr>{''.join(rows)}</table>"


def _reference(schema: Mapping[str, Any]) -> str:
    name = _last(schema)
    return f"<a href='#schema-{escape(name)}'>{escape(name)}</a>" if name else ""


def _last(reference: Mapping[str, Any]) -> str:
    """What a `$ref` names; empty where there is none."""
    return str(reference.get("$ref", "")).rpartition("/")[2]


def _schema(name: str, schema: Mapping[str, Any]) -> str:
    text = json.dumps_pretty(schema).decode()
    return (
        f"<details id='schema-{escape(name)}'><summary><code>{escape(name)}</code> "
        f"{escape(schema.get('description', ''))}</summary><pre>{escape(text)}</pre></details>"
    )
