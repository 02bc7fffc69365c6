/**
 * Memory that is not cleared: write every byte of it before anybody reads it. No Buffer: views of those are Buffers, too, and
 * cost more.
 */
export function uncleared(bytes: number): Uint8Array {
  const { buffer, byteOffset } = Buffer.allocUnsafeSlow(bytes);
  return new Uint8Array(buffer, byteOffset, bytes);
}
