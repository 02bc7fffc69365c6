import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ErrorCode } from "../../generated/ts/codecs/hawser/errors/v1/errors.js";
import { limits } from "../../generated/ts/rules/peer/frames.js";
import { HawserError } from "../../src/foundation/errors/index.js";
import { errorOfRefuse, refuseOf } from "../../src/jobs-and-peers/transport/failures.js";
import { decodeFrame } from "../../src/jobs-and-peers/wire/index.js";
import { atDepth } from "../support/depth.js";
import { decode, encode } from "../wire/coding.js";
import { bytesOfHex } from "../wire/vectors.js";

const { maxBytes } = limits.Refuse.message;

describe("the Refuse for an error", () => {
  it("has its code and message, and no part of its cause", () => {
    const error = new HawserError("busy", "come back later", { cause: new Error("a secret") });
    expect(refuseOf(error)).toEqual({ code: ErrorCode.BUSY, message: "come back later" });
  });

  it("can be sent for any error message", () => {
    // fast-check's own unit "binary" takes a second to be made.
    const code = fc.oneof(fc.integer({ min: 0, max: 0xd7ff }), fc.integer({ min: 0xe000, max: 0x10ffff }));
    const character = code.map((each) => String.fromCodePoint(each));
    const text = fc.oneof(fc.string({ unit: character, maxLength: 2000 }), fc.string({ maxLength: 2000 }));
    fc.assert(
      fc.property(text, (message) => {
        const refuse = refuseOf(new HawserError("internal", message));
        expect(Buffer.byteLength(refuse.message)).toBeLessThanOrEqual(maxBytes);
        expect(decode([encode({ $case: "refuse", value: refuse })])).toEqual([{ $case: "refuse", value: refuse }]);
      }),
      { numRuns: atDepth(100) },
    );
  });

  it("converts back to the error", () => {
    const { code, message } = errorOfRefuse(refuseOf(new HawserError("busy", "come back later")));
    expect({ code, message }).toEqual({ code: "busy", message: "the other side refused: come back later" });
  });

  it("keeps the number of an unknown code", () => {
    // Refuse { code: 9999, message: "newer" }
    const frame = decodeFrame(bytesOfHex("220a088f4e12056e65776572"));
    expect(frame.$case === "refuse" && errorOfRefuse(frame.value)).toMatchObject({
      code: "connection_lost",
      message: "the other side refused with the unknown code 9999: newer",
    });
  });

  it("is truncated between characters", () => {
    for (let start = 0; start < 4; start++) {
      const { message } = refuseOf(new HawserError("internal", "x".repeat(start) + "📦".repeat(300)));
      expect(message).toMatch(/^x*(📦)+\.\.\.$/u);
      expect(Buffer.byteLength(message)).toBeGreaterThan(maxBytes - 4);
    }
  });
});
