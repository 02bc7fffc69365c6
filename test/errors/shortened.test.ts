import fc from "fast-check";
import { expect, it } from "vitest";
import { shortened } from "../../src/foundation/errors/index.js";

it("leaves what fits as it is, to the last byte", () => {
  expect(shortened("harbour", 7)).toBe("harbour");
  expect(shortened("€€", 6)).toBe("€€");
  expect(shortened("", 3)).toBe("");
});

it("ends what does not fit with an ellipsis, between two characters", () => {
  expect(shortened("harbours", 7)).toBe("harb...");
  expect(shortened("€€€", 8)).toBe("€...");
  expect(shortened("🚢🚢", 7)).toBe("🚢...");
  expect(shortened("🚢🚢", 6)).toBe("...");
});

it("is well-formed, also where the text was cut within a character", () => {
  expect(shortened("no 🚢".slice(0, 4), 60)).toBe("no \ufffd");
});

it("never is longer than the limit, and begins as the text does", () => {
  fc.assert(
    fc.property(fc.string({ unit: "grapheme", maxLength: 40 }), fc.integer({ min: 3, max: 60 }), (text, maxBytes) => {
      const short = shortened(text, maxBytes);
      expect(Buffer.byteLength(short)).toBeLessThanOrEqual(maxBytes);
      if (short === text) return;
      expect(Buffer.byteLength(text)).toBeGreaterThan(maxBytes);
      expect(text.startsWith(short.slice(0, -3))).toBe(true);
      expect(Buffer.byteLength(short)).toBeGreaterThan(maxBytes - 4);
    }),
  );
});
