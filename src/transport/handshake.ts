/**
 * The handshake without its sockets: what is proved, and what is checked in which order. Pure; nonces come from outside.
 *
 *     listener → dialler   Challenge   nonce, versions, capabilities
 *     dialler → listener   Hello       who calls whom on which channel, nonce, MAC
 *     listener → dialler   Welcome     cursor, credit, limits, MAC    (or Refuse)
 *
 * Both MACs cover both nonces, so neither can be replayed; they begin with different labels, so neither can be sent back
 * as the other.
 */
import { limits } from "../../generated/ts/rules/peer/frames.js";
import { protocolConstants } from "../../generated/ts/settings/peer.js";
import { TransportError } from "../errors/index.js";
import {
  type Capability,
  type ChallengeFrame,
  type HelloFields,
  type HelloFrame,
  ownCapabilities,
  type WelcomeFields,
  type WelcomeFrame,
} from "../wire/index.js";
import { handshakeMac, secretOf, type Transcript } from "./handshake-mac.js";

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
   * @throws TransportError `unsupported_version` if the listener does not speak this version; `protocol_violation` for a
   * second Challenge
   */
  answer(challenge: ChallengeFrame): HelloFrame {
    if (this.#transcript !== undefined) {
      throw new TransportError("protocol_violation", "the listener sent a second Challenge");
    }
    const { identity, secret, nonce, exporter } = this.#options;
    const { version } = protocolConstants;
    if (challenge.minVersion > version || challenge.maxVersion < version) {
      throw new TransportError(
        "unsupported_version",
        `the listener speaks protocol versions ${challenge.minVersion} to ${challenge.maxVersion}; this is ${version}`,
      );
    }
    this.#transcript = { ...identity, challengeNonce: challenge.nonce, helloNonce: nonce, version, exporter };
    const mac = handshakeMac(secret, "hello", this.#transcript);
    return { ...identity, version, nonce, capabilities: ownCapabilities, mac };
  }

  /**
   * Checks the listener's proof.
   *
   * @throws TransportError `unauthenticated` if it does not know the secret; `protocol_violation` before a Challenge
   */
  accept(welcome: WelcomeFrame): void {
    if (this.#transcript === undefined) {
      throw new TransportError("protocol_violation", "the listener sent Welcome before Challenge");
    }
    if (secretOf(welcome.mac, [this.#options.secret], "welcome", this.#transcript) === undefined) {
      throw new TransportError("unauthenticated", "the listener did not prove that it knows the mesh secret");
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

/** A Hello that has proved itself, and the secret it used. */
export interface VerifiedHello {
  readonly hello: HelloFrame;
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
  challenge(): ChallengeFrame {
    const { version } = protocolConstants;
    return { nonce: this.#options.nonce, minVersion: version, maxVersion: version, capabilities: ownCapabilities };
  }

  /**
   * Checks a Hello: first its proof, then its version and whom it is meant for.
   *
   * @param secrets the mesh secrets that are valid now
   * @throws TransportError `unauthenticated`, `unsupported_version` or `wrong_peer`
   */
  verify(hello: HelloFrame, secrets: readonly Uint8Array[]): VerifiedHello {
    const { listenerName, nonce, exporter } = this.#options;
    const transcript = { ...hello, challengeNonce: nonce, helloNonce: hello.nonce, exporter };
    const secret = secretOf(hello.mac, secrets, "hello", transcript);
    if (secret === undefined) {
      const inBetween = exporter.length === 0 ? "" : ", or something between the two ends TLS";
      throw new TransportError(
        "unauthenticated",
        `the dialler did not prove that it knows the mesh secret${inBetween}`,
      );
    }
    if (hello.version !== protocolConstants.version) {
      throw new TransportError(
        "unsupported_version",
        `the dialler chose protocol version ${hello.version}; this is ${protocolConstants.version}`,
      );
    }
    if (hello.listenerName !== listenerName) {
      throw new TransportError("wrong_peer", `the dialler means ${hello.listenerName}; this is ${listenerName}`);
    }
    return { hello, transcript, secret };
  }

  /** The Welcome to send, proved with the secret that the Hello used. */
  welcome(
    verified: VerifiedHello,
    fields: WelcomeFields & { readonly maxMessageBytes: number; readonly capabilities: readonly Capability[] },
  ): WelcomeFrame {
    return { ...fields, mac: handshakeMac(verified.secret, "welcome", verified.transcript) };
  }
}
