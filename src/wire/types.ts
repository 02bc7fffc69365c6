/**
 * The frames as the layers above see them: plain objects with JavaScript numbers and names instead of the codec's bigints
 * and enum numbers. `proto/hawser/peer/v1/frames.proto` says what each field means; numbers are safe integers, since the
 * spec keeps them below 2^53.
 */
import type { ErrorCode } from "../errors/index.js";

/** How the messages of a batch are delivered. */
export type Delivery = "at-least-once" | "at-most-once";

/** How a payload can be compressed. */
export type Compression = "gzip" | "zstd";

/** What a side can do beyond the base protocol: the compressions it can read. */
export type Capability = "gzip" | "zstd";

/** Headers of one message, in order; names may repeat. */
export type Headers = readonly (readonly [name: string, value: string])[];

/** How the payload at `index` of a batch is compressed. */
export interface PayloadCompression {
  readonly index: number;
  readonly compression: Compression;
  /** Its length once decompressed, in bytes, as declared by the sender. */
  readonly uncompressedBytes: number;
}

/** The headers of the payload at `index` of a batch. */
export interface PayloadHeaders {
  readonly index: number;
  readonly headers: Headers;
}

/**
 * Messages of one topic and one delivery.
 *
 * Outgoing, the payloads belong to the connection until they are written: do not change their bytes after handing them
 * over. Incoming, they are views into the received chunk, valid as long as they are referenced; each view keeps its
 * whole chunk (64 KiB, or the whole frame) alive, so copy what is kept for long.
 */
export interface Batch {
  /** The sender's epoch. */
  readonly epoch: number;
  readonly delivery: Delivery;
  /** The number of the first payload; the others follow without a gap. 0 for at-most-once. */
  readonly firstNumber: number;
  /** The key of the topic that the messages are for. */
  readonly topicKey: number;
  /** At least one. */
  readonly payloads: readonly Uint8Array[];
  /** By ascending index; a payload that is not named is not compressed. */
  readonly compressions?: readonly PayloadCompression[] | undefined;
  /** By ascending index; a payload that is not named has none. */
  readonly headers?: readonly PayloadHeaders[] | undefined;
}

/** A batch on its way out. */
export type OutgoingBatch = Batch;

/** A batch that came in, checked against the spec's rules. */
export type IncomingBatch = Batch;

/** Listener to dialler, first. */
export interface ChallengeFrame {
  /** 32 random bytes. */
  readonly nonce: Uint8Array;
  readonly minVersion: number;
  readonly maxVersion: number;
  readonly capabilities: readonly Capability[];
}

/** Who calls whom on which channel. */
export interface HelloFields {
  readonly senderName: string;
  readonly sourceTopic: string;
  /** The name of the listener that the dialler means to reach. */
  readonly listenerName: string;
  /** The channel's key in the catalog. */
  readonly connectionKey: number;
  /** The sender's epoch. */
  readonly epoch: number;
}

/** Dialler to listener, with proof. */
export interface HelloFrame extends HelloFields {
  readonly version: number;
  /** 32 random bytes. */
  readonly nonce: Uint8Array;
  readonly capabilities: readonly Capability[];
  /** HMAC-SHA256, 32 bytes. */
  readonly mac: Uint8Array;
}

/** What a listener says of a channel when it accepts a connection. */
export interface WelcomeFields {
  /** The epoch of the committed cursor; 0 when nothing was ever acknowledged. */
  readonly cursorEpoch: number;
  /** The last number of that epoch whose handling is committed. */
  readonly cursor: number;
  /** Stored rows that the listener has not taken yet, as far as it knows. */
  readonly backlog: number;
  /** Payload bytes that may be in flight unacknowledged; one message always may. */
  readonly credit: number;
}

/** Listener to dialler: accepted, with proof. */
export interface WelcomeFrame extends WelcomeFields {
  /** The greatest payload that the listener takes, uncompressed, in bytes. */
  readonly maxMessageBytes: number;
  readonly capabilities: readonly Capability[];
  /** HMAC-SHA256, 32 bytes. */
  readonly mac: Uint8Array;
}

/** Either side: not accepted; the connection ends. */
export interface RefuseFrame {
  readonly code: ErrorCode;
  /** Why, in words; never a secret. */
  readonly message: string;
}

/** Listener to dialler: what is done, and how much more may come. */
export interface AckFrame {
  /** The epoch that `number` belongs to. An Ack of another epoch acknowledges nothing. */
  readonly epoch: number;
  /** All numbers up to this one are handled and their cursor is committed. */
  readonly number: number;
  /** Payload bytes that may be in flight unacknowledged. */
  readonly credit: number;
  /** Stored rows that the listener has not taken yet, as far as it knows. */
  readonly backlog: number;
  /** A handler is slow while messages wait: store instead of waiting. */
  readonly busy: boolean;
  /** Nothing stored is left above what the listener has accepted. */
  readonly live: boolean;
}

/** Dialler to listener: everything that is not known to be stored follows on this connection. */
export interface GoLiveFrame {
  /** The sender's epoch. */
  readonly epoch: number;
}

/** Either side, after silence; and the answer to it. */
export interface PingFrame {
  /** Comes back in the Pong. Opaque, any 64 bits: the one number of a frame that need not be a safe integer. */
  readonly token: bigint;
}

/** Either side: the connection ends in good order. */
export interface GoodbyeFrame {
  /** The epoch of the committed cursor (from the listener; else 0). */
  readonly epoch: number;
  /** The final committed cursor (from the listener; else 0). */
  readonly number: number;
}

/** The value of each kind of frame. */
export interface FrameValues {
  readonly challenge: ChallengeFrame;
  readonly hello: HelloFrame;
  readonly welcome: WelcomeFrame;
  readonly refuse: RefuseFrame;
  readonly batch: Batch;
  readonly ack: AckFrame;
  readonly goLive: GoLiveFrame;
  readonly ping: PingFrame;
  readonly pong: PingFrame;
  readonly goodbye: GoodbyeFrame;
}

/** The kinds of frames. */
export type FrameKind = keyof FrameValues;

/** One frame. */
export type Frame = { [K in FrameKind]: { readonly kind: K; readonly value: FrameValues[K] } }[FrameKind];
