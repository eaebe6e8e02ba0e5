"""The same call as it goes over the line, and as code for a terminal, for Python and for JavaScript.

`$PULVINAR_TOKEN` stands for the token.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

FILES: Final = {"image": "photo.jpg", "audio": "recording.wav"}
_HEADER: Final = "X-Access-Token"
_VARIABLE: Final = "PULVINAR_TOKEN"
_BOUNDARY: Final = "----part"
_JS_END: Final = (
    "if (!answer.ok) throw new Error((await answer.json()).error.message);",
    "console.log(await answer.json());",
)


@dataclass(frozen=True, slots=True)
class Snippets:
    """One call, four times."""

    request: str
    """As HTTP/1.1 has it."""
    curl: str
    python: str
    javascript: str


@dataclass(frozen=True, slots=True)
class Same:
    """The call that was made, or would be. `inputs` is what JSON holds where the target takes no file.

    `sent` tells of the file, where there was one; `version` is None where the traffic decides.
    """

    name: str
    modality: str
    inputs: Any = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    version: int | None = None
    sent: str = ""


def snippets(base_url: str, call: Same) -> Snippets:
    """The call as an application would make it; `base_url` is the server's."""
    asked = f"?version={call.version}" if call.version is not None else ""
    url = f"{base_url.rstrip('/')}/api/v1/inference/{call.name}{asked}"
    if call.modality in FILES:
        said = json.dumps(call.parameters, ensure_ascii=False) if call.parameters else ""
        code = (of(url, call.modality, said) for of in (_file_curl, _file_python, _file_javascript))
        return Snippets(_file_request(url, call, said), *code)
    body = {"inputs": call.inputs, **({"parameters": call.parameters} if call.parameters else {})}
    return Snippets(*(of(url, body) for of in (_json_request, _json_curl, _json_python, _json_javascript)))


def _head(url: str, kind: str) -> list[str]:
    parts = urlsplit(url)
    path = f"{parts.path}?{parts.query}" if parts.query else parts.path
    return [
        f"POST {path} HTTP/1.1",
        f"Host: {parts.netloc}",
        f"{_HEADER}: ${_VARIABLE}",
        f"Content-Type: {kind}",
        "",
    ]


def _file_request(url: str, call: Same, parameters: str) -> str:
    part = f'Content-Disposition: form-data; name="{call.modality}"; filename="{FILES[call.modality]}"'
    lines = [*_head(url, f"multipart/form-data; boundary={_BOUNDARY}"), f"--{_BOUNDARY}", part, ""]
    lines.append(f"({call.sent or 'the bytes of the file'})")
    if parameters:
        lines += [f"--{_BOUNDARY}", 'Content-Disposition: form-data; name="parameters"', "", parameters]
    return "\n".join([*lines, f"--{_BOUNDARY}--"])


def _json_request(url: str, body: Mapping[str, Any]) -> str:
    return "\n".join([*_head(url, "application/json"), json.dumps(body, ensure_ascii=False, indent=2)])


def _file_curl(url: str, field: str, parameters: str) -> str:
    parts = [f'curl -H "{_HEADER}: ${_VARIABLE}"', f"-F {field}=@{FILES[field]}"]
    if parameters:
        parts.append(f"-F {shlex.quote(f'parameters={parameters}')}")
    return " \\\n     ".join([*parts, shlex.quote(url)])


def _file_python(url: str, field: str, parameters: str) -> str:
    arguments = [
        json.dumps(url),
        f'headers={{"{_HEADER}": os.environ["{_VARIABLE}"]}}',
        f'files={{"{field}": file}}',
    ]
    if parameters:
        arguments.append(f'data={{"parameters": {parameters!r}}}')
    arguments.append("timeout=60")
    call = [f"        {argument}," for argument in arguments]
    opened = f'with open("{FILES[field]}", "rb") as file:'
    return _python([opened, "    answer = requests.post(", *call, "    )"])


def _file_javascript(url: str, field: str, parameters: str) -> str:
    lines = [
        "const form = new FormData();",
        f'form.append("{field}", file); // a File, as of an <input type="file">',
    ]
    if parameters:
        lines.append(f'form.append("parameters", {json.dumps(parameters, ensure_ascii=False)});')
    call = [
        f"const answer = await fetch({json.dumps(url)}, {{",
        '  method: "POST",',
        f'  headers: {{ "{_HEADER}": token }},',
        "  body: form,",
        "});",
    ]
    return "\n".join([*lines, *call, *_JS_END])


def _json_curl(url: str, body: Mapping[str, Any]) -> str:
    said = shlex.quote(json.dumps(body, ensure_ascii=False))
    return f'curl -H "{_HEADER}: ${_VARIABLE}" \\\n     --json {said} \\\n     {shlex.quote(url)}'


def _json_python(url: str, body: Mapping[str, Any]) -> str:
    headers = f'headers={{"{_HEADER}": os.environ["{_VARIABLE}"]}}'
    # The literals of Python are those of JSON but for three names, which repr writes as Python does.
    arguments = [json.dumps(url), headers, f"json={dict(body)!r}", "timeout=60"]
    return _python(["answer = requests.post(", *[f"    {argument}," for argument in arguments], ")"])


def _json_javascript(url: str, body: Mapping[str, Any]) -> str:
    call = [
        f"const answer = await fetch({json.dumps(url)}, {{",
        '  method: "POST",',
        f'  headers: {{ "{_HEADER}": token, "Content-Type": "application/json" }},',
        f"  body: JSON.stringify({json.dumps(body, ensure_ascii=False)}),",
        "});",
    ]
    return "\n".join([*call, *_JS_END])


def _python(lines: list[str]) -> str:
    return "\n".join(
        ["import os", "", "import requests", "", *lines, "answer.raise_for_status()", "print(answer.json())"]
    )
