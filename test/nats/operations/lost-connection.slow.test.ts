/**
 * Every operation, when its connection ends under it.
 */
import { it } from "vitest";
import { expectToSettle, operationNames } from "./losing.js";

it.each(operationNames)(
  "%s settles when the connection is closed or drained under it, and no rejection is unhandled",
  (name) => expectToSettle(name),
);
