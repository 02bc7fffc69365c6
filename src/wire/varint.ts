/**
 * Base-128 varints, as in https://protobuf.dev/programming-guides/encoding/#varints. Only what the encoder of batches
 * needs beside the library's writer: lengths below 2^32, written into memory that is there already.
 */

/** How many bytes `value` (0 to 2^32 − 1) takes. */
export function varintBytes(value: number): number {
  if (value < 0x80) return 1;
  if (value < 0x4000) return 2;
  if (value < 0x200000) return 3;
  if (value < 0x10000000) return 4;
  return 5;
}

/** Writes `value` (0 to 2^32 − 1) at `position`. @returns the position behind it */
export function writeVarint(bytes: Uint8Array, position: number, value: number): number {
  let rest = value;
  let at = position;
  while (rest > 0x7f) {
    bytes[at++] = (rest & 0x7f) | 0x80;
    rest >>>= 7;
  }
  bytes[at++] = rest;
  return at;
}

/** Writes `value` as a big-endian u32 at `position`. @returns the position behind it */
export function writeUint32(bytes: Uint8Array, position: number, value: number): number {
  bytes[position] = value >>> 24;
  bytes[position + 1] = value >>> 16;
  bytes[position + 2] = value >>> 8;
  bytes[position + 3] = value;
  return position + 4;
}
