"""Placeholder until the data plane's fragment arrives."""


def fragment() -> dict[str, object]:
    return {"paths": {}}
