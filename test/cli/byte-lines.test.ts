import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { allBytes, byteLines } from "../../src/cli/send-lines.js";

async function* chunksOf(bytes: Uint8Array, sizes: readonly number[]): AsyncGenerator<Uint8Array> {
  let from = 0;
  for (const size of sizes) {
    yield bytes.subarray(from, from + size);
    from += size;
  }
  yield bytes.subarray(from);
}

async function linesOf(bytes: Uint8Array, sizes: readonly number[], maxBytes = 1_000): Promise<string[]> {
  const lines: string[] = [];
  for await (const line of byteLines(chunksOf(bytes, sizes), maxBytes))
    lines.push(Buffer.from(line).toString("latin1"));
  return lines;
}

/** Bytes with many line feeds among them. */
const text = fc
  .array(fc.oneof(fc.constant(0x0a), fc.integer({ min: 0, max: 255 })), { maxLength: 60 })
  .map((bytes) => Uint8Array.from(bytes));

describe("byteLines", () => {
  it("gives the same lines however the bytes are cut, and loses none of them", async () => {
    await fc.assert(
      fc.asyncProperty(text, fc.array(fc.nat({ max: 9 }), { maxLength: 30 }), async (bytes, sizes) => {
        const whole = Buffer.from(bytes).toString("latin1");
        const expected = whole.split("\n");
        if (expected.at(-1) === "") expected.pop();
        expect(await linesOf(bytes, sizes)).toEqual(expected);
      }),
    );
  });

  it("refuses a line that is too long, by its number, before all of it is there", async () => {
    let read = 0;
    async function* endless(): AsyncGenerator<Uint8Array> {
      yield Buffer.from("short\n");
      for (;;) {
        read += 1;
        yield Buffer.alloc(10, "x");
      }
    }
    const lines = byteLines(endless(), 25);
    expect(Buffer.from((await lines.next()).value!).toString()).toBe("short");
    await expect(lines.next()).rejects.toThrow("line 2 is longer than 25 bytes");
    expect(read).toBe(3);
  });
});

describe("allBytes", () => {
  it("takes everything, up to a limit", async () => {
    const bytes = Buffer.from("0123456789");
    expect(Buffer.from(await allBytes(chunksOf(bytes, [3, 0, 4]), 10)).toString()).toBe("0123456789");
    await expect(allBytes(chunksOf(bytes, [3, 4]), 9)).rejects.toMatchObject({ code: "invalid_argument" });
  });
});
