import { describe, expect, it } from "vitest";
import { HawserError } from "../../src/foundation/errors/index.js";
import { describeError, jsonText, printable } from "../../src/operating/cli/output.js";
import { momentOf } from "../../src/operating/cli/quantities.js";

/**
 * Characters that a terminal may obey: controls of ASCII and of Latin-1, ends of lines, and changes of the writing
 * direction.
 */
const obeyed = [
  ...Array.from({ length: 0x20 }, (_, code) => code),
  ...Array.from({ length: 0x21 }, (_, offset) => 0x7f + offset),
  ...[0x2028, 0x2029, 0x202a, 0x202b, 0x202c, 0x202d, 0x202e],
  ...[0x2066, 0x2067, 0x2068, 0x2069, 0x061c, 0x200e, 0x200f],
].map((code) => String.fromCharCode(code));

const isPlain = (text: string): boolean => obeyed.every((character) => !text.includes(character));

describe("text that others wrote", () => {
  it("is printed with what a terminal may obey written out, to people and as JSON", () => {
    for (const character of obeyed) {
      const name = JSON.stringify(character);
      const text = `a${character}b`;
      expect(isPlain(printable(text)), name).toBe(true);
      expect(JSON.parse(`"${printable(text)}"`), name).toBe(text);
      const json = jsonText({ [text]: [text] });
      expect(isPlain(json), name).toBe(true);
      expect(JSON.parse(json), name).toEqual({ [text]: [text] });
    }
  });

  it("keeps letters of every script, and what is no character of its own", () => {
    for (const text of ["Grüße, 世界 👋🏽", "שלום", "a\ud800b", "\\u001b"]) expect(printable(text)).toBe(text);
  });

  it("does not reach the terminal in the message of an error, of its cause, or of a defect", () => {
    const clearScreen = "\u001b[2J\u009b2J";
    const cause = new Error(`cause ${clearScreen}`);
    const failure = describeError(new HawserError("invalid_argument", `two lines\nof ${clearScreen}`, { cause }));
    const lines = failure.split("\n");
    expect(lines).toHaveLength(3);
    expect(lines[1]).toContain("of \\u001b[2J\\u009b2J");
    expect(lines[2]).toBe("  because: cause \\u001b[2J\\u009b2J");
    const defect = describeError(new Error(clearScreen));
    expect(defect).toContain("\\u001b[2J\\u009b2J");
    expect(defect.split("\n").length).toBeGreaterThan(3);
  });

  it("does not have a password of a URL in the message of an error", () => {
    const urls = [
      "postgres://u:ge heim@h/x",
      "postgres://u:ge@heim:geheim@h/x",
      "nats://u:geheim@n/",
      "postgresql://h/d?password=geheim&sslpassword=geheim",
      "postgres://u:p/@geheim@h/d",
    ];
    const text = describeError(
      new HawserError("invalid_argument", urls.join("\n"), { cause: new Error(urls.join(" ")) }),
    );
    expect(text).not.toContain("geheim");
    const harmless = "see postgres://user@host:5432/name and file:///x/node_modules/@scope/a.js:1:2";
    expect(describeError(new HawserError("invalid_argument", harmless))).toContain(harmless);
  });
});

describe("a moment", () => {
  const now = new Date("2030-01-01T00:00:00Z");

  it.each([
    ["7d", "2029-12-25T00:00:00.000Z"],
    ["1970-01-01T00:00:00Z", "1970-01-01T00:00:00.000Z"],
    ["2030-01-31", "2030-01-31T00:00:00.000Z"],
  ])("may be %j", (value, moment) => {
    expect(momentOf("--older-than", value, now)?.toISOString()).toBe(moment);
  });

  it.each([
    ["999999d", /--older-than "999999d" is before 1970/],
    ["0000-01-01", /is before 1970/],
    ["1969-12-31T23:59:59Z", /is before 1970/],
    ["2030-13-01", /is not a moment/],
    ["2030-01-01T99:00", /is not a moment/],
    ["yesterday", /is not a moment/],
  ])("may not be %j", (value, message) => {
    expect(() => momentOf("--older-than", value, now)).toThrow(
      expect.objectContaining({ code: "invalid_argument", message: expect.stringMatching(message) }),
    );
  });
});
