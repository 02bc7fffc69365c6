import { gzipSync } from "node:zlib";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  Capability,
  Compression,
  chooseCompression,
  compress,
  decompress,
  ownCapabilities,
} from "../../src/jobs-and-peers/wire/index.js";

const violation = expect.objectContaining({ code: "protocol_violation" });
const mib = 1024 * 1024;
/** Codecs that this Node.js has, with their names. */
const own = [
  ["gzip", Compression.GZIP, Capability.GZIP] as const,
  ["zstd", Compression.ZSTD, Capability.ZSTD] as const,
].filter(([, , capability]) => ownCapabilities.includes(capability));

describe("compression", () => {
  it("can always gzip, and zstd where this Node has it", () => {
    const [major = 0, minor = 0] = process.versions.node.split(".").map(Number);
    const hasZstd = major > 23 || (major === 23 && minor >= 8) || (major === 22 && minor >= 15);
    expect(ownCapabilities).toContain(Capability.GZIP);
    expect(ownCapabilities.includes(Capability.ZSTD)).toBe(hasZstd);
    expect(chooseCompression([Capability.GZIP, Capability.ZSTD])).toBe(hasZstd ? Compression.ZSTD : Compression.GZIP);
    expect(chooseCompression([Capability.GZIP])).toBe(Compression.GZIP);
    expect(chooseCompression([])).toBe(Compression.GZIP);
  });

  it.each(own)("%s gives back what was compressed", async (_, compression) => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 5000 }), async (payload) => {
        const compressed = await compress(payload, compression);
        expect(await decompress(compressed, compression, payload.length, 5000)).toEqual(payload);
      }),
      { numRuns: 50 },
    );
    const long = new Uint8Array(3 * mib).map((_, i) => (i * i) >> 7);
    const back = await decompress(await compress(long, compression), compression, long.length, long.length);
    expect(Buffer.compare(back, long)).toBe(0);
    expect(Buffer.isBuffer(back)).toBe(false);
  });

  it.each(own)("%s refuses what expands beyond its declared length, without expanding it", async (_, format) => {
    const bomb = await compress(new Uint8Array(40 * mib), format);
    expect(bomb.length).toBeLessThan(mib);
    const before = process.memoryUsage().arrayBuffers;
    const results = await Promise.allSettled(Array.from({ length: 20 }, () => decompress(bomb, format, mib, 64 * mib)));
    for (const result of results) expect(result).toMatchObject({ status: "rejected", reason: violation });
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(64 * mib);
  });

  it.each(own)("%s refuses a declared length above the limit before doing anything", async (_, format) => {
    await expect(decompress(new Uint8Array(0), format, 11, 10)).rejects.toThrow(violation);
  });

  it.each(own)("%s refuses damaged bytes and lengths that do not fit", async (_, format) => {
    const compressed = await compress(new Uint8Array(1000).fill(5), format);
    for (const declared of [0, 1, 999, 1001]) {
      await expect(decompress(compressed, format, declared, 2000)).rejects.toThrow(violation);
    }
    for (const bytes of [new Uint8Array(0), new Uint8Array(20), compressed.subarray(0, -1), compressed.subarray(1)]) {
      await expect(decompress(bytes, format, 1000, 2000)).rejects.toThrow(violation);
    }
  });

  it("bounds gzip over several members too", async () => {
    const twice = Buffer.concat([gzipSync(Buffer.alloc(500)), gzipSync(Buffer.alloc(500))]);
    expect(await decompress(twice, Compression.GZIP, 1000, 1000)).toHaveLength(1000);
    await expect(decompress(twice, Compression.GZIP, 500, 1000)).rejects.toThrow(violation);
  });

  it("compresses with zstd, or says that it is missing", async () => {
    const missing = expect.objectContaining({ code: "not_supported" });
    const compressed = compress(new Uint8Array(1), Compression.ZSTD);
    if (ownCapabilities.includes(Capability.ZSTD)) {
      return expect(await decompress(await compressed, Compression.ZSTD, 1, 1)).toEqual(new Uint8Array(1));
    }
    await expect(compressed).rejects.toThrow(missing);
    await expect(decompress(new Uint8Array(1), Compression.ZSTD, 1, 1)).rejects.toThrow(missing);
  });
});
