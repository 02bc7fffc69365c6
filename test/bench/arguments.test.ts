import { describe, expect, it } from "vitest";
import { helpText, parseCommand } from "../../bench/arguments.js";
import { suites } from "../../bench/suites.js";

const peerLive = suites.find(({ name }) => name === "peer-live")!;
const refused = (...args: string[]): string => {
  try {
    parseCommand(args, suites);
  } catch (error) {
    expect(error).toMatchObject({ code: "invalid_argument" });
    return (error as Error).message;
  }
  throw new Error("it was not refused");
};

const nothing = { quick: false, against: undefined };

describe("the arguments of the bench", () => {
  it("name a suite and perhaps a file", () => {
    const plain = { run: peerLive, ...nothing, jsonFile: undefined, writeDocs: false, from: undefined };
    const withFile = { ...plain, jsonFile: "out.json" };
    expect(parseCommand(["peer-live"], suites)).toEqual(plain);
    expect(parseCommand(["peer-live", "--json", "out.json"], suites)).toEqual(withFile);
    expect(parseCommand(["--json=out.json", "peer-live"], suites)).toEqual(withFile);
    expect(parseCommand(["peer-live", "--quick"], suites)).toEqual({ ...plain, quick: true });
    expect(parseCommand(["peer-live", "--against", "../it"], suites)).toEqual({ ...plain, against: "../it" });
  });

  it("name all suites and perhaps ask for the page, or write it from what was saved", () => {
    const plain = { ...nothing, jsonFile: undefined, writeDocs: true, from: undefined };
    expect(parseCommand(["all", "--write-docs"], suites)).toEqual({ ...plain, run: "all" });
    expect(parseCommand(["--write-docs", "--from", "in.json"], suites)).toEqual({
      ...plain,
      run: undefined,
      from: "in.json",
    });
  });

  it("may ask for help, with whatever else", () => {
    expect(parseCommand(["--help"], suites)).toBe("help");
    expect(parseCommand(["peer-live", "-h"], suites)).toBe("help");
  });

  it.each([
    [[], "No suite is given. The suites are peer-live"],
    [["peer-dead"], 'There is no suite "peer-dead". The suites are peer-live'],
    [["toString"], 'There is no suite "toString".'],
    [["peer-live", "peer-live"], 'One suite runs at a time; "peer-live" is one more.'],
    [["peer-live", "--jsno", "x"], "Unknown option '--jsno'. The flags are --json FILE, --quick,"],
    [["peer-live", "--json"], "'--json <value>' argument missing"],
    [["peer-live", "--json="], "--json needs the name of a file."],
    [["peer-live", "--write-docs"], "--write-docs goes with all and without --quick"],
    [["all", "--quick", "--write-docs"], "--write-docs goes with all and without --quick"],
    [["--from", "in.json"], "--from goes with --write-docs and nothing else"],
    [["all", "--write-docs", "--from", "in.json"], "--from goes with --write-docs and nothing else"],
    [["--write-docs", "--from", "in.json", "--against", "d"], "--from goes with --write-docs and nothing else"],
    [["peer-live", "--against="], "--against needs the folder of a checkout."],
    [["--write-docs", "--from="], "--from needs the name of a file."],
    [["peer-live", "--help=yes"], "'-h, --help' does not take an argument"],
  ])("%j are refused with what would be right", (args, message) => {
    expect(refused(...args)).toContain(message);
    expect(refused(...args)).toContain("npm run bench -- --help");
  });

  it("are explained, each suite in one line", () => {
    const lines = helpText(suites).split("\n");
    expect(lines).toContainEqual(expect.stringMatching(/all +all of them, .*: \d+ minutes/));
    for (const { name, summary } of suites) expect(lines).toContainEqual(expect.stringMatching(`${name} +${summary}`));
    expect(Math.max(...lines.map(({ length }) => length))).toBeLessThanOrEqual(120);
  });
});
