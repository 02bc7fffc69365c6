import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { protocolConstants } from "../../generated/ts/settings/peer.js";
import { handshakeVectors } from "./vectors.js";

const text = readFileSync(new URL("../../docs/protocol.md", import.meta.url), "utf8");

describe("docs/protocol.md", () => {
  it("gives the numbers of the spec", () => {
    const rows = [...text.matchAll(/^\| `(\w+)` \| `?([\w]+)`? \| /gm)].map(([, name, value]) => [name, value]);
    expect(rows.length).toBeGreaterThanOrEqual(8);
    const constants = protocolConstants as Readonly<Record<string, number | string>>;
    for (const [name, value] of rows) expect(`${name} ${constants[name!]}`).toBe(`${name} ${value}`);
  });

  it("works the first vector of the handshake through", () => {
    const [vector] = handshakeVectors;
    const worked = /the Hello's MAC covers these bytes.*?```\n(.*?)\n```/s.exec(text)?.[1] ?? "";
    // The first two columns are hexadecimal, what follows two spaces or more is their meaning.
    const hex = worked.split("\n").map((line) => line.trim().split(/ {2,}/)[0]?.replace(" ", "") ?? "");
    expect(hex.join("")).toBe(vector?.helloMacInputHex);
    for (const field of ["secretHex", "helloMacHex", "welcomeMacHex"] as const) expect(text).toContain(vector?.[field]);
  });
});
