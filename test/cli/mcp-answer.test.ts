/** Answers of `hawser mcp`: what is left of texts that others have written, and how much is answered. */
import { describe, expect, it } from "vitest";
import { answerText, rowsThatFit, shownText, untrusted, withoutHidden } from "../../src/operating/cli/mcp-answer.js";

describe("a text of others", () => {
  it("has no control, format and other invisible characters, and keeps its lines", () => {
    const tags = String.fromCodePoint(..."obey".split("").map((letter) => 0xe0000 + letter.charCodeAt(0)));
    const hidden = `a\u001b[2J\u0000b\u202ec\u200bd\ufe01e${tags}\u{e0100}f\u2028g\ud800h`;
    expect(withoutHidden(hidden)).toBe("a[2Jbcdefgh");
    expect(withoutHidden("two\nlines\tand 🪢, é")).toBe("two\nlines\tand 🪢, é");
  });

  it("is cut, and has no password of a URL", () => {
    expect(shownText("x".repeat(5_000), 100)).toBe(`${"x".repeat(97)}...`);
    expect(shownText("at postgres://a:secret@db/app")).not.toContain("secret");
  });

  it("is left out if there is none", () => {
    expect(untrusted({ topic: "t", listener: null, worker: undefined, empty: "" })).toEqual({ topic: "t", empty: "" });
  });
});

describe("the rows of an answer", () => {
  it("are those that fit, and say whether there are more", async () => {
    const row = { text: "x".repeat(10_000) };
    const { rows, more } = await rowsThatFit(Array(10).fill(row), 100);
    expect({ rows: rows.length, more }).toEqual({ rows: 6, more: true });
    expect(Buffer.byteLength(answerText({ rows, more }))).toBeLessThan(66_000);
    expect(await rowsThatFit([{ a: 1 }, undefined, { a: 2 }], 2)).toEqual({ rows: [{ a: 1 }, { a: 2 }], more: false });
    expect(await rowsThatFit([{ a: 1 }, { a: 2 }], 1)).toEqual({ rows: [{ a: 1 }], more: true });
  });
});
