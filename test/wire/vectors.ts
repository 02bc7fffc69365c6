/**
 * The conformance vectors in test/vectors.
 */
import { readFileSync } from "node:fs";

/** A frame as bytes and as fields. */
export interface FrameVector {
  readonly name: string;
  readonly description: string;
  readonly frameHex: string;
  readonly json: unknown;
}

/** A frame that no decoder accepts. */
export type RefusedVector = Omit<FrameVector, "json">;

/** The MACs of one handshake. */
export interface HandshakeVector {
  readonly name: string;
  readonly description: string;
  readonly secretHex: string;
  readonly challengeNonceHex: string;
  readonly helloNonceHex: string;
  readonly senderName: string;
  readonly sourceTopic: string;
  readonly listenerName: string;
  readonly connectionKey: number;
  readonly epoch: string;
  readonly version: number;
  readonly exporterHex: string;
  readonly helloMacInputHex: string;
  readonly helloMacHex: string;
  readonly welcomeMacInputHex: string;
  readonly welcomeMacHex: string;
}

function read<T>(file: string): readonly T[] {
  const text = readFileSync(new URL(`../vectors/${file}`, import.meta.url), "utf8");
  return (JSON.parse(text) as { readonly vectors: readonly T[] }).vectors;
}

export const frameVectors = read<FrameVector>("frames.json");
export const acceptedVectors = read<FrameVector>("accepted.json");
export const refusedVectors = read<RefusedVector>("refused.json");
export const handshakeVectors = read<HandshakeVector>("handshake.json");

export function bytesOfHex(hex: string): Uint8Array {
  return new Uint8Array(Buffer.from(hex, "hex"));
}

export function hexOfBytes(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("hex");
}
