import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { limits } from "../../generated/ts/rules/peer/frames.js";
import { TransportError } from "../../src/errors/index.js";
import { refuseOf } from "../../src/transport/refuse-message.js";
import { atDepth } from "../support/depth.js";
import { decode, encode } from "../wire/coding.js";

const { maxBytes } = limits.Refuse.message;

describe("the Refuse for an error", () => {
  it("has its code and message, and nothing of its cause", () => {
    const error = new TransportError("busy", "come back later", { cause: new Error("a secret") });
    expect(refuseOf(error)).toEqual({ code: "busy", message: "come back later" });
  });

  it("can always be sent, whatever the error says", () => {
    // fast-check's own unit "binary" takes a second to be made.
    const code = fc.oneof(fc.integer({ min: 0, max: 0xd7ff }), fc.integer({ min: 0xe000, max: 0x10ffff }));
    const character = code.map((each) => String.fromCodePoint(each));
    const text = fc.oneof(fc.string({ unit: character, maxLength: 2000 }), fc.string({ maxLength: 2000 }));
    fc.assert(
      fc.property(text, (message) => {
        const refuse = refuseOf(new TransportError("internal", message));
        expect(Buffer.byteLength(refuse.message)).toBeLessThanOrEqual(maxBytes);
        expect(decode([encode({ kind: "refuse", value: refuse })])).toEqual([{ kind: "refuse", value: refuse }]);
      }),
      { numRuns: atDepth(100) },
    );
  });

  it("is cut between characters", () => {
    for (let start = 0; start < 4; start++) {
      const { message } = refuseOf(new TransportError("internal", "x".repeat(start) + "📦".repeat(300)));
      expect(message).toMatch(/^x*(📦)+\.\.\.$/u);
      expect(Buffer.byteLength(message)).toBeGreaterThan(maxBytes - 4);
    }
  });
});
