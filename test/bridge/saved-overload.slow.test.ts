/**
 * The rules of `saved.test.ts` under a real overload: thousands of small messages.
 */
import { describe, it } from "vitest";
import { bufferBytes, overloadLosesNothing, slowRoleLeavesRoom } from "./support/overload.js";

describe("an overload of thousands of messages", () => {
  it("loses nothing: the table takes what memory has no room for, and all is run in order", () =>
    overloadLosesNothing({ messages: 1_200, messageBytes: 1_000 }));

  it("of one role leaves room in the table for the messages of the others", () =>
    slowRoleLeavesRoom({ messages: 6_000, messageBytes: 1_000 }, 4 * bufferBytes));
});
