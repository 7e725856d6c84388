"""A selector: of the emptiest nodes, the one that is least busy.

It has no clock, no random numbers and no IO. The same request, candidates, configuration and
`request.seed` must give the same answer: that is what makes a decision replayable.
wit/policy.wit says what else there is; `componentize-py -d wit -w selector-module bindings .` writes
the module `wit_world` for your editor.
"""

import json
import math

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.selector import Ask_Lowest, Candidates, Lowest, Manifest
from wit_world.imports import host
from wit_world.imports.answers import Answer, Scores, Verdict_Choose
from wit_world.imports.types import Request


def feature(text: str) -> str:
    """The figure that counts most: `{"feature": "processes-of-type"}` chooses another."""
    config = json.loads(text)
    if not isinstance(config, dict):
        raise ValueError("it must be an object")
    name = config.pop("feature", "processes")
    if not isinstance(name, str):
        raise ValueError("`feature` must be a text")
    for key in config:
        raise ValueError(f"unknown key {key}")
    return name


def known(value: float) -> float:
    """A value that the host does not know is NaN; such a node comes last."""
    return math.inf if math.isnan(value) else value


class Selector(exports.Selector):
    def describe(self) -> Manifest:
        first = feature(host.config())
        return Manifest(
            name="{{name}}",
            version="0.1.0",
            # The columns of `candidates.features`, in this order.
            features=[first, "cpu"],
            # What `maitred process explain` shows beside each node of `scores`.
            terms=[first, "cpu"],
            # Of the whole fleet the 16 lowest. Each value costs a little time to hand over, so it is
            # the host that looks at all nodes.
            ask=Ask_Lowest(Lowest(feature=first, count=16)),
        )

    def validate(self, config: str) -> None:
        """A configuration is tried before a version decides with it. Raise `Err` with the reason:
        any other exception ends the instance."""
        try:
            feature(config)
        except ValueError as error:
            raise Err(str(error))

    def select(self, request: Request, candidates: Candidates) -> Answer:
        """5 ms of processor time; `Err` makes the host decide by the type's fallback."""
        # Row by row, as many values as features.
        values = [candidates.features[row : row + 2] for row in range(0, len(candidates.features), 2)]
        # The sort is stable, and the host has put equal nodes in an order of `request.seed`.
        order = sorted(range(len(values)), key=lambda row: [known(value) for value in values[row]])
        best = order[:5]
        return Answer(
            verdict=Verdict_Choose(candidates.slots[best[0]]),
            scores=Scores(
                slots=[candidates.slots[row] for row in best],
                values=[value for row in best for value in values[row]],
            ),
        )
