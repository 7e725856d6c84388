"""A callback: starts the process on the node that was chosen, and waits a little when it is busy.

It has no clock, no random numbers and no IO but `node` and `records`. It may be called again for the
same incarnation after a crash of the host; `node.start` gives the first answer then.
wit/policy.wit says what else there is; `componentize-py -d wit -w callback-module bindings .` writes
the module `wit_world` for your editor.
"""

import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.callback import (
    Advice,
    Advice_BackOff,
    Advice_Usual,
    Ended,
    Failure_Elsewhere,
    Hook,
    Manifest,
    Placement,
)
from wit_world.imports import host, node
from wit_world.imports.types import Request


def tries(text: str) -> int:
    """How often a busy node is asked: `{"tries": 5}`, 1 to 16."""
    config = json.loads(text)
    if not isinstance(config, dict):
        raise ValueError("it must be an object")
    number = config.pop("tries", 3)
    if type(number) is not int or not 1 <= number <= 16:
        raise ValueError("`tries` must be 1 to 16")
    for key in config:
        raise ValueError(f"unknown key {key}")
    return number


class Callback(exports.Callback):
    def describe(self) -> Manifest:
        # Hooks that are not named here are not called: also EXIT and COMPENSATE.
        return Manifest(name="{{name}}", version="0.1.0", hooks=[Hook.NODE_LOST])

    def validate(self, config: str) -> None:
        """A configuration is tried before a version decides with it. Raise `Err` with the reason:
        any other exception ends the instance."""
        try:
            tries(config)
        except ValueError as error:
            raise Err(str(error))

    def spawn(self, request: Request, placement: Placement) -> node.Started:
        """50 ms of processor time; waiting for the node does not count."""
        last = tries(host.config())
        for attempt in range(1, last + 1):
            try:
                # The node has ten seconds, or what is left of the create's deadline.
                return node.start(request.args, 10_000)
            except Err as error:
                why = error.value
                if not isinstance(why, node.Failure_Busy) or attempt == last:
                    # `Failure_GiveUp` would end the create instead of trying another node.
                    name = type(why).__name__.removeprefix("Failure_")
                    raise Err(Failure_Elsewhere(f"{name}: {why.value}"))
                text = f"{placement.node} is busy with {request.id}: try {attempt} of {last}"
                host.log(host.Level.INFO, text)
                node.pause(50 * attempt)
        raise AssertionError("the last try returns or raises")

    def compensate(self, request: Request, placement: Placement, reason: str) -> None:
        """Undoes what `spawn` did besides `start`: nothing here."""

    def on_node_lost(self, ended: Ended) -> Advice:
        """Only advice: at once the first time, later each time after that."""
        if ended.times <= 1:
            return Advice_Usual()
        return Advice_BackOff(min(600_000, 500 * 2 ** min(ended.times, 16)))

    def on_exit(self, ended: Ended) -> Advice:
        return Advice_Usual()
