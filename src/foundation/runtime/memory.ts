/**
 * Allocates uninitialised memory: write every byte before it is read. Not a Buffer, because views of a Buffer are
 * Buffers and cost more.
 */
export function uncleared(bytes: number): Uint8Array {
  const { buffer, byteOffset } = Buffer.allocUnsafeSlow(bytes);
  return new Uint8Array(buffer, byteOffset, bytes);
}
