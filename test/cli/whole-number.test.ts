import { describe, expect, it } from "vitest";
import { wholeNumber } from "../../src/cli/options.js";
import { HawserError } from "../../src/errors/index.js";

describe("an option that is a whole number", () => {
  it("is taken in digits, within its range", () => {
    expect(wholeNumber("buffer-bytes", "67108864", 1, 2 ** 30)).toBe(67_108_864);
    expect(wholeNumber("limit", "1", 1, 1)).toBe(1);
    expect(wholeNumber("limit", undefined, 1, 1)).toBeUndefined();
  });

  it.each([
    ["buffer-bytes", "64MiB", "67108864 for 64 MiB"],
    ["buffer-bytes", "64 mb", "67108864 for 64 MiB"],
    ["buffer-bytes", "2048K", "2097152 for 2048 KiB"],
    ["buffer-bytes", "1G", "1073741824 for 1 GiB"],
    ["call-timeout-ms", "30s", "30000 for 30 s"],
    ["call-timeout-ms", "2m", "120000 for 2 min"],
    ["call-timeout-ms", "5000ms", "5000 for 5000 ms"],
  ])("with a unit is refused with the number to write: --%s %s", (option, value, words) => {
    expect(() => wholeNumber(option, value, 1, 2 ** 30)).toThrow(
      `--${option} "${value}" is not a whole number from 1 to ${2 ** 30}; write digits alone: ${words}`,
    );
  });

  it.each([
    ["buffer-bytes", "64"],
    ["buffer-bytes", "8GiB"],
    ["buffer-bytes", "64 parsecs"],
    ["buffer-bytes", "-1"],
    ["limit", "64MiB"],
    ["limit", ""],
    ["limit", "1.5"],
  ])("is refused with its range alone where no number follows from it: --%s %j", (option, value) => {
    expect(() => wholeNumber(option, value, 100, 1_000)).toThrow(
      new HawserError("invalid_argument", `--${option} "${value}" is not a whole number from 100 to 1000`),
    );
  });
});
