/**
 * Keeps batches within the frame that the other side accepts. Whoever gathers a batch counts payload bytes; headers can
 * make many small payloads much longer than that.
 */
import { WireError } from "../errors/index.js";
import type { Batch, Headers } from "./types.js";

/** More than the fields of a batch beside its payloads, compressions and headers take, with the tags around it. */
const fixedBytes = 64;

/** More than the tag and length of a payload, and the entry that says how it is compressed, take. */
const payloadOverheadBytes = 32;

/** More than the tags and lengths around one header, or around the list of them, take. */
const headerOverheadBytes = 16;

/**
 * Splits a batch into batches that surely fit a frame each, in order and with their numbers.
 *
 * @param maxFrameBytes the greatest frame that the other side accepts, without its length prefix
 * @throws WireError `invalid_argument` if a single message does not fit
 */
export function splitBatch(batch: Batch, maxFrameBytes: number): readonly Batch[] {
  const room = maxFrameBytes - fixedBytes;
  const headersOf = new Map(batch.headers?.map((entry) => [entry.index, entry.headers]));
  const parts: Batch[] = [];
  let begin = 0;
  let bytes = 0;
  batch.payloads.forEach((payload, index) => {
    const size = payload.length + payloadOverheadBytes + bytesOfHeaders(headersOf.get(index));
    if (size > room) {
      throw new WireError(
        "invalid_argument",
        `a message takes ${size} bytes with its headers; the other side accepts frames of ${maxFrameBytes}`,
      );
    }
    if (bytes + size > room) {
      parts.push(slice(batch, begin, index));
      begin = index;
      bytes = 0;
    }
    bytes += size;
  });
  parts.push(slice(batch, begin, batch.payloads.length));
  return parts;
}

/** At least the bytes that the headers take. */
function bytesOfHeaders(headers: Headers | undefined): number {
  if (headers === undefined) return 0;
  let bytes = headerOverheadBytes;
  for (const [name, value] of headers) {
    bytes += headerOverheadBytes + Buffer.byteLength(name) + Buffer.byteLength(value);
  }
  return bytes;
}

function slice(batch: Batch, begin: number, end: number): Batch {
  const within = <T extends { readonly index: number }>(entries: readonly T[] | undefined): T[] | undefined => {
    const kept = entries?.filter(({ index }) => index >= begin && index < end);
    return kept?.length ? kept.map((entry) => ({ ...entry, index: entry.index - begin })) : undefined;
  };
  return {
    ...batch,
    firstNumber: batch.delivery === "at-least-once" ? batch.firstNumber + begin : 0,
    payloads: batch.payloads.slice(begin, end),
    compressions: within(batch.compressions),
    headers: within(batch.headers),
  };
}
