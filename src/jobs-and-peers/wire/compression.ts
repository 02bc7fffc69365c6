/** Compression of single payloads in the thread pool: gzip always, zstd if this Node.js has it (22.15 and later). */
import { promisify } from "node:util";
import * as zlib from "node:zlib";
import { Compression } from "../../../generated/ts/codecs/hawser/peer/v1/frames.js";
import { errorMessageOf, HawserError } from "../../foundation/errors/index.js";

/** Function of zlib, with the options used here. */
type Transform = (
  input: Uint8Array,
  options: { readonly chunkSize?: number; readonly maxOutputLength?: number },
) => Promise<Uint8Array>;

/** Output is allocated in chunks of at most this size, since the declared length may be false. */
const maxChunkBytes = 256 * 1024;
const minChunkBytes = 1024;

function transformNamed(name: string): Transform | undefined {
  // Looked up by name, because the types of Node.js 20 lack zstd.
  const transform = (zlib as Record<string, unknown>)[name];
  return typeof transform === "function" ? (promisify(transform) as unknown as Transform) : undefined;
}

/** Compression format and its name in error messages. A peer that can read it has the capability for it. */
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

/** Returns true if this Node.js can read the format. */
export function canDecompress(compression: Compression): boolean {
  return formatOf(compression).decompress !== undefined;
}

/**
 * Compresses a payload.
 *
 * @returns bytes owned by the caller; they may be longer than the payload
 * @throws HawserError `not_supported` for zstd on a Node.js without it
 */
export async function compress(payload: Uint8Array, compression: Compression): Promise<Uint8Array> {
  const { name, compress } = formatOf(compression);
  if (compress === undefined) throw missing(name);
  return plain(await compress(payload, {}));
}

/**
 * Decompresses a payload of declared length. Memory and time are bounded by the declared length, even if the bytes
 * would expand further.
 *
 * @param uncompressedBytes length declared by the sender
 * @param maxBytes maximum accepted length (`maxMessageBytes`)
 * @returns exactly `uncompressedBytes` bytes, owned by the caller
 * @throws HawserError `protocol_violation` if the declared length exceeds `maxBytes`, or if the bytes are damaged or
 * expand to another length; `not_supported` for zstd on a Node.js without it
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
    // zlib rejects 0. The comparison below covers an empty payload.
    maxOutputLength: Math.max(uncompressedBytes, 1),
  }).catch((cause: unknown) => {
    throw violation(
      tooLong(cause)
        ? `a ${name} payload expands beyond the ${uncompressedBytes} bytes it declares`
        : `a ${name} payload is damaged: ${errorMessageOf(cause)}`,
      cause,
    );
  });
  if (expanded.length !== uncompressedBytes) {
    throw violation(`a ${name} payload declares ${uncompressedBytes} bytes and expands to ${expanded.length}`);
  }
  return plain(expanded);
}

/** Looks up a format. @throws HawserError `invalid_argument` for an unknown compression */
function formatOf(compression: Compression): Format {
  const format = (formats as Partial<Record<Compression, Format>>)[compression];
  if (format === undefined) throw new HawserError("invalid_argument", `${compression} is not a known compression`);
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

/** Converts the Buffers of zlib to plain Uint8Arrays, which payloads are everywhere. */
function plain(bytes: Uint8Array): Uint8Array {
  return new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
