// A callback: starts the process on the node that was chosen, and waits a little when it is busy.
//
// It has no clock, no random numbers and no IO but `node` and `records`. It may be called again for
// the same incarnation after a crash of the host; `start` gives the first answer then.
// wit/policy.wit says what else there is; a variant is { tag: "name", val: value }, a name that has
// a dash in the WIT is in camelCase here, and an error of an import is thrown with its value in
// `payload`.

import { config, log } from "maitred:policy/host@0.2.0";
import { start, pause } from "maitred:policy/node@0.2.0";

/// How often a busy node is asked: `{"tries": 5}`, 1 to 16.
function tries(text) {
  const config = JSON.parse(text);
  if (config?.constructor !== Object) throw new Error("it must be an object");
  const { tries = 3, ...unknown } = config;
  if (!Number.isInteger(tries) || tries < 1 || tries > 16) throw new Error("`tries` must be 1 to 16");
  for (const key in unknown) throw new Error(`unknown key ${key}`);
  return tries;
}

/// What `spawn` throws: "elsewhere" tries another node, "give-up" ends the create.
function failure(tag, reason) {
  return Object.assign(new Error(reason), { payload: { tag, val: reason } });
}

export const callback = {
  describe() {
    // Hooks that are not named here are not called: also "exit" and "compensate".
    return { name: "{{name}}", version: "0.1.0", hooks: ["node-lost"] };
  },

  // A configuration is tried before a version decides with it; what is thrown is the reason.
  validate(text) {
    tries(text);
  },

  // 50 ms of processor time; waiting for the node does not count.
  spawn(request, placement) {
    const last = tries(config());
    for (let attempt = 1; ; attempt++) {
      try {
        // The node has ten seconds, or what is left of the create's deadline.
        return start(request.args, 10_000);
      } catch (error) {
        const { tag, val } = error.payload ?? { tag: "failed", val: String(error) };
        if (tag !== "busy" || attempt === last) throw failure("elsewhere", `${tag}: ${val}`);
        log("info", `${placement.node} is busy with ${request.id}: try ${attempt} of ${last}`);
        pause(50 * attempt);
      }
    }
  },

  // Undoes what `spawn` did besides `start`: nothing here.
  compensate(request, placement, reason) {},

  // Only advice: at once the first time, later each time after that.
  onNodeLost(ended) {
    if (ended.times <= 1) return { tag: "usual" };
    return { tag: "back-off", val: Math.min(600_000, 500 * 2 ** Math.min(ended.times, 16)) };
  },

  onExit(ended) {
    return { tag: "usual" };
  },
};
