/**
 * What a side proves in the handshake: that it knows the mesh secret, here and now, for this channel. docs/protocol.md has
 * the bytes, test/vectors/handshake.json an example.
 */
import { createHmac, timingSafeEqual } from "node:crypto";
import type { HelloFields } from "../wire/index.js";

/** What comes first in the MAC of each direction. */
export const macLabels = { hello: "hawser/1 hello", welcome: "hawser/1 welcome" } as const;

/** What both MACs cover, beside the direction's label. */
export interface Transcript extends HelloFields {
  readonly challengeNonce: Uint8Array;
  readonly helloNonce: Uint8Array;
  readonly version: number;
  /** The TLS exporter value of the connection; empty without TLS. It ties the proof to this very TLS session. */
  readonly exporter: Uint8Array;
}

/**
 * HMAC-SHA256 over the label and the transcript, each part as a big-endian u32 length and its bytes.
 *
 * @param secret the mesh secret, not empty: an empty key proves nothing
 * @returns 32 bytes
 */
export function handshakeMac(
  secret: Uint8Array,
  direction: keyof typeof macLabels,
  transcript: Transcript,
): Uint8Array {
  const epoch = Buffer.alloc(8);
  epoch.writeBigUInt64BE(BigInt(transcript.epoch));
  const parts = [
    Buffer.from(macLabels[direction]),
    transcript.challengeNonce,
    transcript.helloNonce,
    Buffer.from(transcript.senderName),
    Buffer.from(transcript.sourceTopic),
    Buffer.from(transcript.listenerName),
    uint32(transcript.connectionKey),
    epoch,
    uint32(transcript.version),
    transcript.exporter,
  ];
  const hmac = createHmac("sha256", secret);
  for (const part of parts) hmac.update(uint32(part.length)).update(part);
  return hmac.digest();
}

function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

/** The first of the secrets under which the transcript has this MAC. Takes the same time wherever MACs differ. */
export function secretOf(
  mac: Uint8Array,
  secrets: readonly Uint8Array[],
  direction: keyof typeof macLabels,
  transcript: Transcript,
): Uint8Array | undefined {
  let found: Uint8Array | undefined;
  for (const secret of secrets) {
    const expected = handshakeMac(secret, direction, transcript);
    if (secret.length > 0 && mac.length === expected.length && timingSafeEqual(mac, expected)) found ??= secret;
  }
  return found;
}
