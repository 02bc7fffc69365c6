/**
 * The handshake without its sockets: what is proved, and what is checked in which order. Pure; nonces come from outside.
 * docs/protocol.md has the bytes that the MACs cover, test/vectors/handshake.json an example.
 *
 *     listener → dialler   Challenge   nonce, versions, capabilities
 *     dialler → listener   Hello       who calls whom on which channel, nonce, MAC
 *     listener → dialler   Welcome     cursor, credit, limits, MAC    (or Refuse)
 *
 * Both MACs cover both nonces, so neither can be replayed; they begin with different labels, so neither can be sent back
 * as the other.
 */
import { createHmac, timingSafeEqual } from "node:crypto";
import { limits } from "../../generated/ts/rules/peer/frames.js";
import { protocolConstants } from "../../generated/ts/settings/peer.js";
import { HawserError } from "../errors/index.js";
import { type Challenge, type Hello, type HelloFields, ownCapabilities, type Welcome } from "../wire/index.js";

/** The length of a nonce in bytes: the rules accept no other. */
export const nonceBytes = limits.Challenge.nonce.minBytes;

/** What a dialler brings along. */
export interface DiallerHandshakeOptions {
  readonly identity: HelloFields;
  /** The newest mesh secret. */
  readonly secret: Uint8Array;
  /** 32 random bytes, never used before. */
  readonly nonce: Uint8Array;
  /** The TLS exporter value; empty without TLS. */
  readonly exporter: Uint8Array;
}

/** The dialler's side. Call {@link answer}, then {@link accept}. */
export class DiallerHandshake {
  #transcript: Transcript | undefined;

  readonly #options: DiallerHandshakeOptions;

  constructor(options: DiallerHandshakeOptions) {
    this.#options = options;
  }

  /**
   * The Hello to send.
   *
   * @throws HawserError `unsupported_version` if the listener does not speak this version; `protocol_violation` for a
   * second Challenge
   */
  answer(challenge: Challenge): Hello {
    if (this.#transcript !== undefined) {
      throw new HawserError("protocol_violation", "the listener sent a second Challenge");
    }
    const { identity, secret, nonce, exporter } = this.#options;
    const { version } = protocolConstants;
    if (challenge.minVersion > version || challenge.maxVersion < version) {
      throw new HawserError(
        "unsupported_version",
        `the listener speaks protocol versions ${challenge.minVersion} to ${challenge.maxVersion}; this is ${version}`,
      );
    }
    this.#transcript = { ...identity, challengeNonce: challenge.nonce, helloNonce: nonce, version, exporter };
    const mac = handshakeMac(secret, "hello", this.#transcript);
    return { ...identity, version, nonce, capabilities: [...ownCapabilities], mac };
  }

  /**
   * Checks the listener's proof.
   *
   * @throws HawserError `unauthenticated` if it does not know the secret; `protocol_violation` before a Challenge
   */
  accept(welcome: Welcome): void {
    if (this.#transcript === undefined) {
      throw new HawserError("protocol_violation", "the listener sent Welcome before Challenge");
    }
    if (secretOf(welcome.mac, [this.#options.secret], "welcome", this.#transcript) === undefined) {
      throw new HawserError("unauthenticated", "the listener did not prove that it knows the mesh secret");
    }
  }
}

/** What a listener brings along. */
export interface ListenerHandshakeOptions {
  readonly listenerName: string;
  /** 32 random bytes, never used before. */
  readonly nonce: Uint8Array;
  /** The TLS exporter value; empty without TLS. */
  readonly exporter: Uint8Array;
}

/** What a Hello that has proved itself said, and the secret it used. */
export interface VerifiedHello {
  readonly transcript: Transcript;
  readonly secret: Uint8Array;
}

/** The listener's side. Call {@link challenge}, {@link verify}, and {@link welcome} with what it returned. */
export class ListenerHandshake {
  readonly #options: ListenerHandshakeOptions;

  constructor(options: ListenerHandshakeOptions) {
    this.#options = options;
  }

  /** The Challenge to send. */
  challenge(): Challenge {
    const { version } = protocolConstants;
    return { nonce: this.#options.nonce, minVersion: version, maxVersion: version, capabilities: [...ownCapabilities] };
  }

  /**
   * Checks a Hello: first its proof, then its version and whom it is meant for.
   *
   * @param secrets the mesh secrets that are valid now
   * @throws HawserError `unauthenticated`, `unsupported_version` or `wrong_peer`
   */
  verify(hello: Hello, secrets: readonly Uint8Array[]): VerifiedHello {
    const { listenerName, nonce, exporter } = this.#options;
    const transcript = { ...hello, challengeNonce: nonce, helloNonce: hello.nonce, exporter };
    const secret = secretOf(hello.mac, secrets, "hello", transcript);
    if (secret === undefined) {
      const inBetween = exporter.length === 0 ? "" : ", or something between the two ends TLS";
      throw new HawserError("unauthenticated", `the dialler did not prove that it knows the mesh secret${inBetween}`);
    }
    if (hello.version !== protocolConstants.version) {
      throw new HawserError(
        "unsupported_version",
        `the dialler chose protocol version ${hello.version}; this is ${protocolConstants.version}`,
      );
    }
    if (hello.listenerName !== listenerName) {
      throw new HawserError("wrong_peer", `the dialler means ${hello.listenerName}; this is ${listenerName}`);
    }
    return { transcript, secret };
  }

  /** The Welcome to send, proved with the secret that the Hello used. */
  welcome({ secret, transcript }: VerifiedHello, fields: Omit<Welcome, "mac">): Welcome {
    return { ...fields, mac: handshakeMac(secret, "welcome", transcript) };
  }
}

/** What comes first in the MAC of each direction. */
const macLabels = { hello: "hawser/1 hello", welcome: "hawser/1 welcome" } as const;

/** What both MACs cover, beside the direction's label. */
interface Transcript extends HelloFields {
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
function secretOf(
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
