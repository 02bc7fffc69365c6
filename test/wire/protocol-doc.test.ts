import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { errorTable } from "../../generated/ts/errors/errors.js";
import { CapabilitySchema, FrameSchema } from "../../generated/ts/es/hawser/peer/v1/frames_pb.js";
import { protocolConstants } from "../../generated/ts/settings/peer.js";
import { conversationVectors, handshakeVectors } from "./vectors.js";

const text = readFileSync(new URL("../../docs/protocol.md", import.meta.url), "utf8");

describe("docs/protocol.md", () => {
  it("names every kind of frame", () => {
    const names = FrameSchema.fields.map(({ message }) => message!.name);
    expect(names.filter((name) => !new RegExp(`\\b${name}\\b`).test(text))).toEqual([]);
  });

  it("names every capability", () => {
    const names = CapabilitySchema.values.filter(({ number }) => number > 0).map(({ name }) => name);
    expect(names.filter((name) => !text.includes(`\`${name}\``))).toEqual([]);
  });

  it("gives the numbers of the spec", () => {
    const rows = [...text.matchAll(/^\| `(\w+)` \| `?([\w]+)`? \| /gm)].map(([, name, value]) => [name, value]);
    expect(rows.length).toBeGreaterThanOrEqual(8);
    const constants = protocolConstants as Readonly<Record<string, number | string>>;
    for (const [name, value] of rows) expect(`${name} ${constants[name!]}`).toBe(`${name} ${value}`);
  });

  it("gives the numbers of the errors", () => {
    const rows = [...text.matchAll(/^\| (\d+) \| `(\w+)` \| /gm)].map(([, number, code]) => [code, Number(number)]);
    expect(rows.length).toBeGreaterThanOrEqual(9);
    const errors = errorTable as Readonly<Record<string, { readonly wireCode: number }>>;
    for (const [code, number] of rows) expect([code, errors[code!]?.wireCode]).toEqual([code, number]);
  });

  it("works the first vector of the handshake through", () => {
    const [vector] = handshakeVectors;
    const worked = /the Hello's MAC covers these bytes.*?```text\n(.*?)\n```/s.exec(text)?.[1] ?? "";
    // The first two columns are hexadecimal, what follows two spaces or more is their meaning.
    const hex = worked.split("\n").map((line) => line.trim().split(/ {2,}/)[0]?.replace(" ", "") ?? "");
    expect(hex.join("")).toBe(vector?.helloMacInputHex);
    for (const field of ["secretHex", "helloMacHex", "welcomeMacHex"] as const) expect(text).toContain(vector?.[field]);
  });

  it("shows the first conversation of the vectors byte by byte", () => {
    const { steps } = conversationVectors[0]!;
    const shown = /## A conversation, byte by byte.*?```text\n(.*?)\n```/s.exec(text)?.[1] ?? "";
    const said = shown.split(/^(?=[→←])/m).map((step) => {
      const [head = "", ...lines] = step.trimEnd().split("\n");
      return { head, hex: lines.join("").replaceAll(" ", "") };
    });
    expect(said).toEqual(
      steps.map(({ from, frame = "preamble", why, hex, frameHex }) => ({
        head: `${from === "dialler" ? "→" : "←"} ${frame}: ${why}`,
        hex: frameHex ?? hex,
      })),
    );
  });
});

it("generated/docs/frames.md says what each message, field and value means", () => {
  const page = readFileSync(new URL("../../generated/docs/frames.md", import.meta.url), "utf8");
  const messages = [...page.matchAll(/^#+ (\w+)\n\n\|/gm)].map(([, name]) => name);
  const rows = page.split("\n").filter((line) => /^\| `.* \|\s+\|$/.test(line));
  const silent = rows.filter((row) => !/one of `kind`|_UNSPECIFIED/.test(row));
  expect([...messages, ...silent]).toEqual([]);
});
