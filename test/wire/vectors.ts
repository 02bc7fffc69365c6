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
  readonly channelId: number;
  readonly epoch: string;
  readonly version: number;
  readonly exporterHex: string;
  readonly helloMacInputHex: string;
  readonly helloMacHex: string;
  readonly welcomeMacInputHex: string;
  readonly welcomeMacHex: string;
}

/** A stream of one direction, and what its receiver makes of it. */
export interface StreamVector {
  readonly name: string;
  readonly description: string;
  /** Whether the preamble has to come first. */
  readonly preamble: boolean;
  readonly maxFrameBytes: number;
  readonly hex: string;
  /** The kinds of the frames in it. */
  readonly frames: readonly string[];
  /** End of the stream: the decoder waits for more, or refuses with `protocol_violation`. */
  readonly end: "waits" | "refused";
}

/** A compressed payload. */
export interface PayloadVector {
  readonly name: string;
  readonly description: string;
  readonly compression: "gzip" | "zstd";
  readonly payloadHex: string;
  /** Uncompressed length that the sender declared. */
  readonly uncompressedBytes: number;
  /** Decompressed bytes. */
  readonly resultHex?: string;
  readonly refused?: true;
}

/** Step of one side in a conversation: the preamble, a frame, or a Refuse of which only the code is fixed. */
interface ConversationStep {
  readonly from: "dialler" | "listener";
  readonly why: string;
  readonly hex?: string;
  readonly frame?: string;
  readonly frameHex?: string;
  readonly json?: unknown;
  readonly macInputHex?: string;
  readonly code?: string;
  readonly wireCode?: number;
}

/** A conversation, from its first byte to its last. */
export interface ConversationVector {
  readonly name: string;
  readonly description: string;
  readonly secretHex: string;
  readonly steps: readonly ConversationStep[];
}

function read<T>(file: string): readonly T[] {
  const text = readFileSync(new URL(`../vectors/${file}`, import.meta.url), "utf8");
  return (JSON.parse(text) as { readonly vectors: readonly T[] }).vectors;
}

export const frameVectors = read<FrameVector>("frames.json");
/** At the limits of their fields; apart, because some tests cut frames at every offset. */
export const longFrameVectors = read<FrameVector>("long-frames.json");
export const acceptedVectors = read<FrameVector>("accepted.json");
export const refusedVectors = read<RefusedVector>("refused.json");
export const handshakeVectors = read<HandshakeVector>("handshake.json");
export const streamVectors = read<StreamVector>("streams.json");
export const payloadVectors = read<PayloadVector>("payloads.json");
export const conversationVectors = read<ConversationVector>("conversations.json");

export function bytesOfHex(hex: string): Uint8Array {
  return new Uint8Array(Buffer.from(hex, "hex"));
}

export function hexOfBytes(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("hex");
}

/**
 * Refused vectors that a protobuf library reads and that break no rule of `frames.proto`: of two kinds the last one
 * counts there, and the order of a list is beyond what a rule can say.
 */
export const refusedBeyondRules: readonly string[] = [
  "two-kinds",
  "same-kind-twice",
  "compression-index-descending",
  "header-index-descending",
];
