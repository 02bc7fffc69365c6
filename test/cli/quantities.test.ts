import { describe, expect, it } from "vitest";
import { HawserError } from "../../src/foundation/errors/index.js";
import { type QuantityKind, quantityOf, quantityText, wholeNumber } from "../../src/operating/cli/quantities.js";

const all = { min: 0, max: 2 ** 50 };

describe("a quantity", () => {
  it.each<[QuantityKind, string, number]>([
    ["size", "512B", 512],
    ["size", "64KiB", 65_536],
    ["size", "128MiB", 134_217_728],
    ["size", "1GiB", 2 ** 30],
    ["size", "1TiB", 2 ** 40],
    ["duration", "250ms", 250],
    ["duration", "10s", 10_000],
    ["duration", "15m", 900_000],
    ["duration", "2h", 7_200_000],
    ["duration", "7d", 604_800_000],
    ["duration", "0", 0],
    ["size", "0", 0],
  ])("is digits and a unit, and zero alone: a %s of %s", (kind, text, value) => {
    expect(quantityOf(kind, "--flag", text, all)).toBe(value);
    expect(quantityText(kind, value)).toBe(text);
  });

  it("is nothing where nothing is given", () => {
    expect(quantityOf("size", "--flag", undefined, all)).toBeUndefined();
  });

  it("is shown in the greatest unit that leaves a whole number", () => {
    expect(quantityText("duration", 90_000)).toBe("90s");
    expect(quantityText("size", 1_048_577)).toBe("1048577B");
  });

  it.each<[QuantityKind, string, string]>([
    ["size", "134217728", "write a unit: 128MiB"],
    ["size", "128MB", "write 128MiB"],
    ["size", "128 mib", "write 128MiB"],
    ["size", "2048K", "write 2MiB"],
    ["duration", "10", "write a unit: 10ms or 10s"],
    ["duration", "10sec", "write 10s"],
    ["duration", "2 min", "write 2m"],
    ["duration", "2M", "write 2m"],
    ["duration", "1.5s", "write digits and a unit, such as 500ms, 10s or 15m"],
    ["duration", "-1s", "write digits and a unit, such as 500ms, 10s or 15m"],
    ["duration", "", "write digits and a unit, such as 500ms, 10s or 15m"],
    ["size", "64 parsecs", "write digits and a unit, such as 64KiB, 128MiB or 1GiB"],
  ])("that is written otherwise is refused with what to write: a %s of %j", (kind, text, remedy) => {
    const range = kind === "size" ? "from 0 to 1024TiB" : `from 0 to ${2 ** 50}ms`;
    expect(() => quantityOf(kind, "--flag", text, all)).toThrow(
      new HawserError("invalid_argument", `--flag "${text}" is not a ${kind} ${range}; ${remedy}`),
    );
  });

  it.each<[QuantityKind, string, string]>([
    [
      "duration",
      "2h",
      '--flag "2h" is not a duration from 100ms to 1h; write digits and a unit, such as 500ms, 10s or 15m',
    ],
    ["duration", "99ms", '--flag "99ms" is not a duration from 100ms to 1h; '],
    ["duration", "0", '--flag "0" is not a duration from 100ms to 1h; write a unit, such as 500ms, 10s or 15m'],
  ])("beyond its range is refused with the range: a %s of %s", (kind, text, words) => {
    expect(() => quantityOf(kind, "--flag", text, { min: 100, max: 3_600_000 })).toThrow(words);
  });
});

describe("a whole number", () => {
  it("is digits, within its range", () => {
    expect(wholeNumber("--limit", "67108864")).toBe(67_108_864);
    expect(wholeNumber("--limit", "1", { min: 1, max: 1 })).toBe(1);
    expect(wholeNumber("--limit", undefined)).toBeUndefined();
  });

  it.each(["64", "64MiB", "-1", "", "1.5"])("that is none, or beyond its range, is refused: %j", (value) => {
    expect(() => wholeNumber("--limit", value, { min: 100, max: 1_000 })).toThrow(
      new HawserError("invalid_argument", `--limit "${value}" is not a whole number from 100 to 1000`),
    );
  });
});
