"""Operations: one asynchronous change asked of a deployment."""

from __future__ import annotations

from enum import StrEnum


class OperationType(StrEnum):
    CREATE = "create"
    SCALE = "scale"
    UPDATE = "update"
    START = "start"
    STOP = "stop"
    RESTART = "restart"
    DELETE = "delete"
    ADOPT = "adopt"


class OperationStatus(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SUPERSEDED = "superseded"


ACTIVE = frozenset({OperationStatus.PENDING, OperationStatus.RUNNING})


def supersedes(newer: OperationType, older: OperationType) -> bool:
    """Whether `newer` may replace a running `older`; else it is a conflict.

    A delete replaces everything. A new size or spec replaces the older one, because only the last
    generation counts. Start, stop and restart wait for nobody and replace nobody.
    """
    if older is OperationType.DELETE:
        return False
    if newer is OperationType.DELETE:
        return True
    return newer in {OperationType.SCALE, OperationType.UPDATE} and older in {
        OperationType.CREATE,
        OperationType.SCALE,
        OperationType.UPDATE,
    }
