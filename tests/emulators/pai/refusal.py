"""How the platform says no: `{RequestId, HostId, Code, Message, Recommend}` under an HTTP status."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any

from starlette.responses import JSONResponse


@dataclass
class Refusal(Exception):
    status: int
    code: str
    message: str

    def response(self, *, lower_case: bool = False) -> JSONResponse:
        body: dict[str, Any] = {
            "RequestId": secrets.token_hex(16).upper(),
            "HostId": "pai-eas.cn-hangzhou.aliyuncs.com",
            "Code": self.code,
            "Message": self.message,
            "Recommend": "https://api.aliyun.com/troubleshoot",
        }
        if lower_case:
            body = {name[0].lower() + name[1:]: value for name, value in body.items()}
        return JSONResponse(body, self.status)


def not_found(name: str) -> Refusal:
    return Refusal(404, "ServiceNotFound", f"Service [{name}] is not found in the region")
