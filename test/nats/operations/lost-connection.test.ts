/**
 * An operation whose connection ends under it: one of each kind. All of them are in the slow tier.
 */
import { it } from "vitest";
import { expectToSettle } from "./losing.js";

const kinds = ["request", "streams.publish", "keyValue.get", "keyValue.put", "objectStores.put"] as const;

it.each(kinds)("%s settles when the connection is closed or drained under it, and no rejection is unhandled", (name) =>
  expectToSettle(name),
);
