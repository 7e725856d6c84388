// A selector: of the emptiest nodes, the one that is least busy.
//
// It has no clock, no random numbers and no IO. The same request, candidates, configuration and
// `request.seed` must give the same answer: that is what makes a decision replayable.
// wit/policy.wit says what else there is; a variant is { tag: "name", val: value }, a name that has
// a dash in the WIT is in camelCase here.

import { config, log } from "maitred:policy/host@0.2.0";

/// The figure that counts most: `{"feature": "processes-of-type"}` chooses another.
function feature(text) {
  const config = JSON.parse(text);
  if (config?.constructor !== Object) throw new Error("it must be an object");
  const { feature = "processes", ...unknown } = config;
  if (typeof feature !== "string") throw new Error("`feature` must be a text");
  for (const key in unknown) throw new Error(`unknown key ${key}`);
  return feature;
}

/// A value that the host does not know is NaN; such a node comes last.
const known = (value) => (Number.isNaN(value) ? Infinity : value);
const compare = (a, b) => (a === b ? 0 : a - b);

export const selector = {
  describe() {
    const first = feature(config());
    return {
      name: "{{name}}",
      version: "0.1.0",
      // The columns of `candidates.features`, in this order.
      features: [first, "cpu"],
      // What `maitred process explain` shows beside each node of `scores`.
      terms: [first, "cpu"],
      // Of the whole fleet the 16 lowest. Each value costs a little time to hand over, so it is the
      // host that looks at all nodes.
      ask: { tag: "lowest", val: { feature: first, count: 16 } },
    };
  },

  // A configuration is tried before a version decides with it; what is thrown is the reason.
  validate(text) {
    feature(text);
  },

  // 5 ms of processor time; an exception makes the host decide by the type's fallback.
  select(request, candidates) {
    const rows = candidates.slots.map((slot, row) => ({
      slot,
      // Row by row, as many values as features.
      values: candidates.features.slice(2 * row, 2 * row + 2),
    }));
    // The sort is stable, and the host has put equal nodes in an order of `request.seed`.
    rows.sort(
      (a, b) =>
        compare(known(a.values[0]), known(b.values[0])) ||
        compare(known(a.values[1]), known(b.values[1])),
    );
    if (request.attempt > 1) log("debug", `${request.id}: try ${request.attempt}`);
    const best = rows.slice(0, 5);
    return {
      verdict: { tag: "choose", val: best[0].slot },
      scores: {
        slots: best.map((row) => row.slot),
        values: best.flatMap((row) => [...row.values]),
      },
    };
  },
};
