/**
 * Compression of single payloads, off the main thread. gzip always; zstd where this Node has it (22.15 and later).
 */
import { promisify } from "node:util";
import * as zlib from "node:zlib";
import { Compression } from "../../generated/ts/codecs/hawser/peer/v1/frames.js";
import { HawserError } from "../errors/index.js";

/** One of zlib's functions, with the options used here. */
type Transform = (
  input: Uint8Array,
  options: { readonly chunkSize?: number; readonly maxOutputLength?: number },
) => Promise<Uint8Array>;

/** How much output is allocated at a time: never the declared length, which the sender may have made up. */
const maxChunkBytes = 256 * 1024;
const minChunkBytes = 1024;

function transformNamed(name: string): Transform | undefined {
  // Looked up by name because the types of Node 20 do not have zstd.
  const transform = (zlib as Record<string, unknown>)[name];
  return typeof transform === "function" ? (promisify(transform) as unknown as Transform) : undefined;
}

/** A way to compress, with its name in errors. A side that can read it has a capability for it. */
interface Format {
  readonly name: string;
  readonly compress: Transform | undefined;
  readonly decompress: Transform | undefined;
}

const formats: { readonly [C in Exclude<Compression, Compression.UNSPECIFIED | Compression.UNRECOGNIZED>]: Format } = {
  [Compression.GZIP]: {
    name: "gzip",
    compress: transformNamed("gzip"),
    decompress: transformNamed("gunzip"),
  },
  [Compression.ZSTD]: {
    name: "zstd",
    compress: transformNamed("zstdCompress"),
    decompress: transformNamed("zstdDecompress"),
  },
};

/** Whether this Node can read a compression. */
export function canDecompress(compression: Compression): boolean {
  return formatOf(compression).decompress !== undefined;
}

/**
 * Compresses a payload.
 *
 * @returns bytes that are the caller's; they may be longer than the payload
 * @throws HawserError `not_supported` for zstd on a Node that has none
 */
export async function compress(payload: Uint8Array, compression: Compression): Promise<Uint8Array> {
  const { name, compress } = formatOf(compression);
  if (compress === undefined) throw missing(name);
  return plain(await compress(payload, {}));
}

/**
 * Decompresses a payload whose length is declared. Neither memory nor time is spent beyond the declared length, however
 * much the bytes would expand to.
 *
 * @param uncompressedBytes the length that the sender declared
 * @param maxBytes the greatest length accepted (`maxMessageBytes`)
 * @returns exactly `uncompressedBytes` bytes, the caller's
 * @throws HawserError `protocol_violation` if the declared length is above `maxBytes`, or the bytes are damaged or expand
 * to another length; `not_supported` for zstd on a Node that has none
 */
export async function decompress(
  payload: Uint8Array,
  compression: Compression,
  uncompressedBytes: number,
  maxBytes: number,
): Promise<Uint8Array> {
  const { name, decompress } = formatOf(compression);
  if (decompress === undefined) throw missing(name);
  if (uncompressedBytes > maxBytes) {
    throw violation(`a payload declares ${uncompressedBytes} bytes uncompressed; at most ${maxBytes} are accepted`);
  }
  const expanded = await decompress(payload, {
    chunkSize: Math.min(Math.max(uncompressedBytes, minChunkBytes), maxChunkBytes),
    // zlib refuses 0 here; an empty payload is caught by the comparison below.
    maxOutputLength: Math.max(uncompressedBytes, 1),
  }).catch((cause: unknown) => {
    throw violation(
      tooLong(cause)
        ? `a ${name} payload expands beyond the ${uncompressedBytes} bytes it declares`
        : `a ${name} payload is damaged: ${cause instanceof Error ? cause.message : String(cause)}`,
      cause,
    );
  });
  if (expanded.length !== uncompressedBytes) {
    throw violation(`a ${name} payload declares ${uncompressedBytes} bytes and expands to ${expanded.length}`);
  }
  return plain(expanded);
}

/** @throws HawserError `invalid_argument` for a number that is no compression */
function formatOf(compression: Compression): Format {
  const format = (formats as Partial<Record<Compression, Format>>)[compression];
  if (format === undefined) throw new HawserError("invalid_argument", `${compression} is no compression`);
  return format;
}

function tooLong(cause: unknown): boolean {
  return (cause as { code?: unknown } | null)?.code === "ERR_BUFFER_TOO_LARGE";
}

function violation(message: string, cause?: unknown): HawserError {
  return new HawserError("protocol_violation", message, cause === undefined ? {} : { cause });
}

function missing(name: string): HawserError {
  return new HawserError("not_supported", `this Node (${process.version}) has no ${name}; 22.15 and later do`);
}

/** zlib gives Buffers; payloads are plain Uint8Arrays everywhere. */
function plain(bytes: Uint8Array): Uint8Array {
  return new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
