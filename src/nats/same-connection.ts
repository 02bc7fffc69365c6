import { type CompleteNatsServerOptions, connectionOptions } from "../../generated/ts/nats-options/index.js";

/** True if both describe the same connection, whatever their other options are, or are both undefined. */
export function sameConnection(
  one: CompleteNatsServerOptions | undefined,
  other: CompleteNatsServerOptions | undefined,
): boolean {
  if (one === undefined || other === undefined) return one === other;
  return connectionOptions.every((name) => one[name] === other[name]);
}
