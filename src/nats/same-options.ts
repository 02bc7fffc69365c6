import type { CompleteNatsServerOptions } from "../../generated/ts/nats-options/index.js";

/** True if the two say the same, option for option, or are both undefined. */
export function sameOptions(
  one: CompleteNatsServerOptions | undefined,
  other: CompleteNatsServerOptions | undefined,
): boolean {
  if (one === undefined || other === undefined) return one === other;
  const names = new Set([...Object.keys(one), ...Object.keys(other)]) as Set<keyof CompleteNatsServerOptions>;
  return [...names].every((name) => one[name] === other[name]);
}
