/**
 * Handshake without sockets: proofs and checks. Pure; nonces are passed in. docs/protocol.md has the bytes that the
 * MACs cover, test/vectors/handshake.json an example.
 *
 *     listener → dialler   Challenge   nonce, versions, capabilities
 *     dialler → listener   Hello       sender, listener, channel, nonce, MAC
 *     listener → dialler   Welcome     cursor, credit, limits, MAC    (or Refuse)
 *
 * Both MACs cover both nonces, so neither can be replayed. They start with different labels, so neither can be
 * reflected as the other.
 */
import { createHmac, timingSafeEqual } from "node:crypto";
import { limits } from "../../../generated/ts/rules/peer/frames.js";
import { protocolConstants } from "../../../generated/ts/settings/peer.js";
import { HawserError } from "../../foundation/errors/index.js";
import { type Challenge, type Hello, type HelloFields, ownCapabilities, type Welcome } from "../wire/index.js";

/** Length of a nonce in bytes. */
export const nonceBytes = limits.Challenge.nonce.minBytes;

/** Options of {@link DiallerHandshake}. */
export interface DiallerHandshakeOptions {
  readonly identity: HelloFields;
  /** Newest mesh secret. */
  readonly secret: Uint8Array;
  /** 32 fresh random bytes. */
  readonly nonce: Uint8Array;
  /** TLS exporter value; empty without TLS. */
  readonly exporter: Uint8Array;
}

/** Dialler's side of the handshake. Call {@link answer}, then {@link accept}. */
export class DiallerHandshake {
  #transcript: Transcript | undefined;

  readonly #options: DiallerHandshakeOptions;

  constructor(options: DiallerHandshakeOptions) {
    this.#options = options;
  }

  /**
   * Returns the Hello to send.
   *
   * @throws HawserError `unsupported_version` if the listener does not support this version; `protocol_violation`
   * for a second Challenge
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
   * @throws HawserError `unauthenticated` if the listener does not know the secret; `protocol_violation` before a
   * Challenge
   */
  accept(welcome: Welcome): void {
    if (this.#transcript === undefined) {
      throw new HawserError("protocol_violation", "the listener sent Welcome before Challenge");
    }
    if (matchingSecret(welcome.mac, [this.#options.secret], "welcome", this.#transcript) === undefined) {
      throw new HawserError("unauthenticated", "the listener did not prove that it knows the mesh secret");
    }
  }
}

/** Options of {@link ListenerHandshake}. */
export interface ListenerHandshakeOptions {
  readonly listenerName: string;
  /** 32 fresh random bytes. */
  readonly nonce: Uint8Array;
  /** TLS exporter value; empty without TLS. */
  readonly exporter: Uint8Array;
}

/** Content of an authenticated Hello, and the secret of its MAC. */
export interface VerifiedHello {
  readonly transcript: Transcript;
  readonly secret: Uint8Array;
}

/**
 * Listener's side of the handshake. Call {@link challenge}, {@link verify}, then {@link welcome} with the result of
 * `verify`.
 */
export class ListenerHandshake {
  readonly #options: ListenerHandshakeOptions;

  constructor(options: ListenerHandshakeOptions) {
    this.#options = options;
  }

  /** Returns the Challenge to send. */
  challenge(): Challenge {
    const { version } = protocolConstants;
    return { nonce: this.#options.nonce, minVersion: version, maxVersion: version, capabilities: [...ownCapabilities] };
  }

  /**
   * Checks a Hello: first its proof, then its version and its intended listener.
   *
   * @param secrets currently valid mesh secrets
   * @throws HawserError `unauthenticated`, `unsupported_version` or `wrong_peer`
   */
  verify(hello: Hello, secrets: readonly Uint8Array[]): VerifiedHello {
    const { listenerName, nonce, exporter } = this.#options;
    const transcript = { ...hello, challengeNonce: nonce, helloNonce: hello.nonce, exporter };
    const secret = matchingSecret(hello.mac, secrets, "hello", transcript);
    if (secret === undefined) {
      const inBetween = exporter.length === 0 ? "" : ", or an intermediary terminates TLS";
      throw new HawserError("unauthenticated", `the dialler did not prove that it knows the mesh secret${inBetween}`);
    }
    if (hello.version !== protocolConstants.version) {
      throw new HawserError(
        "unsupported_version",
        `the dialler chose protocol version ${hello.version}; this is ${protocolConstants.version}`,
      );
    }
    if (hello.listenerName !== listenerName) {
      throw new HawserError("wrong_peer", `the dialler addressed ${hello.listenerName}; this is ${listenerName}`);
    }
    return { transcript, secret };
  }

  /** Returns the Welcome to send, authenticated with the secret of the Hello. */
  welcome({ secret, transcript }: VerifiedHello, fields: Omit<Welcome, "mac">): Welcome {
    return { ...fields, mac: handshakeMac(secret, "welcome", transcript) };
  }
}

/** First bytes of the MAC input, by direction. */
const macLabels = { hello: "hawser/1 hello", welcome: "hawser/1 welcome" } as const;

/** Data that both MACs cover, besides the label. */
interface Transcript extends HelloFields {
  readonly challengeNonce: Uint8Array;
  readonly helloNonce: Uint8Array;
  readonly version: number;
  /** TLS exporter value of the connection; empty without TLS. It binds the proof to this TLS session. */
  readonly exporter: Uint8Array;
}

/**
 * HMAC-SHA256 over the label and the transcript, each part with a big-endian u32 length prefix.
 *
 * @param secret mesh secret; must not be empty, because an empty key proves nothing
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
    uint32(transcript.channelId),
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

/** Returns the first secret under which the transcript has this MAC. Compares in constant time. */
function matchingSecret(
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
