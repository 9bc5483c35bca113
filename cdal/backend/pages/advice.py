"""What to do about a problem that a job told of."""

from __future__ import annotations

import re

_ADVICE = (
    (
        r"could not be asked",
        "see that Label Studio runs and that the backend reaches its address; the backend tries "
        "again by itself.",
    ),
    (
        r"refused to .*: 40[13]",
        "give the backend the access token of a user who may change the project "
        "(LABEL_STUDIO_API_KEY), and restart it.",
    ),
    (
        r"refused to .*: 404",
        "the project or a task of it is gone from Label Studio; connect the project again if it "
        "should still be served.",
    ),
    (r"model version in Label Studio is", "press «Rescore», or wait for the next round."),
    (r"^Setting «", "change it under «Settings»; it takes effect at once."),
    (
        r"labeling config|<[A-Z]\w+>|has no control|control «",
        "change the labeling interface in Label Studio's project settings; the backend notices.",
    ),
    (r"images cannot be used|could not be read", "mend or remove the images that the log names."),
    (
        r"out of memory|memory",
        "set a smaller «batch_size» or «image_size» under «Settings», then start the training.",
    ),
    (
        r"Internal error",
        "read the backend's log, which has the details; then start the step again below.",
    ),
    (r"worker died", "see whether the machine ran out of memory; then start the step again below."),
)


def advice_on(problem: str | None) -> str | None:
    """What a person can do about a problem; None where there is none."""
    if problem is None:
        return None
    for pattern, advice in _ADVICE:
        if re.search(pattern, problem):
            return advice
    return "when it is mended, start the step again; the problem goes away once it succeeds."
