"""The audit of log-probabilities that were computed elsewhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from alignfirst.auditing import findings
from alignfirst.auditing.findings import Audit
from alignfirst.auditing.inputs import inputs_of
from alignfirst.auditing.logprob_table import DIGEST, read
from alignfirst.errors import InputError
from alignfirst.files import file_digest
from alignfirst.study.audit.request import AuditRequest


def is_table(reference: str) -> bool:
    """Whether a reference is a file of log-probabilities: any file but a model's."""
    path = Path(reference)
    return path.is_file() and path.suffix != ".gguf"


def audit_log_probs(request: AuditRequest) -> Audit:
    """Judge every plan on the rows of a file. Raises InputError for what they say, and for what they hold already."""
    _check(request)
    path = Path(request.reference)
    plans = request.planned(text=False)
    table = read(path, None if request.target_file is None else Path(request.target_file))
    if np.isfinite(table.tokens).any():  # lengths in tokens: the responses are text
        plans = [replace(plan, text=True) for plan in plans]
    about = {"log_probs": request.reference, DIGEST: file_digest(path), "rows": len(table)}
    return findings.audit(inputs_of(table, request.target), plans, title=request.reference, about=about)


def _check(request: AuditRequest) -> None:
    cure = "Its rows hold pairs, samples, rewards and what the teacher says."
    request.refuse(("pairs", "prompts", "reward", "teacher", "samples"), "--log-probs stands alone", cure)
    if request.rows is not None:
        # A row here is one response: the first so many would part the answers of a pair, and draws of the two models
        cure = "Write a file of the rows you want, both answers of a pair and all samples of a prompt together."
        raise InputError("--rows is for --pairs and --prompts", f"--rows {request.rows} with --log-probs", cure)
