import { describe, expect, it } from "vitest";
import { allBytes } from "../../src/operating/cli/message-input.js";

async function* chunksOf(bytes: Uint8Array, sizes: readonly number[]): AsyncGenerator<Uint8Array> {
  let from = 0;
  for (const size of sizes) {
    yield bytes.subarray(from, from + size);
    from += size;
  }
  yield bytes.subarray(from);
}

describe("allBytes", () => {
  it("takes everything, up to a limit", async () => {
    const bytes = Buffer.from("0123456789");
    expect(Buffer.from(await allBytes(chunksOf(bytes, [3, 0, 4]), 10)).toString()).toBe("0123456789");
    await expect(allBytes(chunksOf(bytes, [3, 4]), 9)).rejects.toMatchObject({ code: "invalid_argument" });
  });
});
