/**
 * Server side of SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, RFC 7677). Passwords are printable ASCII, which
 * SASLprep does not change.
 */
import { createHash, createHmac, pbkdf2, randomBytes, timingSafeEqual } from "node:crypto";
import { promisify } from "node:util";
import { HawserError } from "../../../foundation/errors/index.js";

/** Mechanism without channel binding. */
const scramMechanism = "SCRAM-SHA-256";

/** Mechanism with channel binding; over TLS only. */
export const scramPlusMechanism = "SCRAM-SHA-256-PLUS";

const keyBytes = 32;
const saltBytes = 16;
const derive = promisify(pbkdf2);

/** Verifier that a server stores instead of a password, which cannot be derived from it except by guessing. */
export interface ScramVerifier {
  readonly salt: Buffer;
  readonly iterations: number;
  readonly storedKey: Buffer;
  readonly serverKey: Buffer;
}

/**
 * Derives the verifier of a password, off the event loop. The salt is random unless given.
 *
 * @throws HawserError (as a rejection) `invalid_argument` if the password is empty or not printable ASCII
 */
export async function scramVerifierOf(
  password: string,
  iterations: number,
  salt: Buffer = randomBytes(saltBytes),
): Promise<ScramVerifier> {
  if (!/^[\x20-\x7e]+$/.test(password)) {
    throw new HawserError(
      "invalid_argument",
      "the password of the gateway must be printable ASCII and not empty; `hawser init` creates one",
    );
  }
  const salted = await derive(password, salt, iterations, keyBytes, "sha256");
  const storedKey = createHash("sha256").update(hmac(salted, "Client Key")).digest();
  return { salt, iterations, storedKey, serverKey: hmac(salted, "Server Key") };
}

/**
 * Verifier that no password matches, for unknown users: like a known user, each has the same salt at every login.
 *
 * @param secret random bytes that stay the same as long as the salts of known users
 */
export function mockVerifierOf(secret: Uint8Array, user: string, iterations: number): ScramVerifier {
  const salt = hmac(secret, user).subarray(0, saltBytes);
  return { salt, iterations, storedKey: randomBytes(keyBytes), serverKey: randomBytes(keyBytes) };
}

/** Result of a step of the exchange. */
export type ScramStep =
  | { readonly kind: "go-on"; readonly reply: string }
  /** The client's message violates the protocol. */
  | { readonly kind: "malformed"; readonly reason: string }
  /** The client does not know the password. */
  | { readonly kind: "refused" }
  /** The client knows the password, but was shown a certificate that is not the gateway's. */
  | { readonly kind: "other-channel" };

/** Exchange of one login: the client's first message, then its final one. */
export class ScramExchange {
  #gs2Header = "";
  #isBound = false;
  #nonce = "";
  #firstBare = "";
  #serverFirst = "";

  readonly #verifier: ScramVerifier;
  readonly #serverNonce: string;
  readonly #certificate: Uint8Array | undefined;

  /**
   * @param serverNonce printable ASCII without commas; must be unique
   * @param certificate DER certificate of the gateway for this connection. Without it, channel binding is not offered
   */
  constructor(verifier: ScramVerifier, serverNonce: string, certificate?: Uint8Array) {
    this.#verifier = verifier;
    this.#serverNonce = serverNonce;
    this.#certificate = certificate;
  }

  /** Mechanisms to offer, the best first. */
  get mechanisms(): readonly string[] {
    return this.#certificate === undefined ? [scramMechanism] : [scramPlusMechanism, scramMechanism];
  }

  /**
   * Processes the first message of the client, `n,,n=user,r=nonce`. The user name in the message is ignored: the one in
   * the startup packet counts.
   *
   * @param mechanism mechanism of `mechanisms` that the client chose
   */
  first(message: string, mechanism = scramMechanism): ScramStep {
    const [, flag, authzid, bare] = /^([^,]*),([^,]*),(.*)$/s.exec(message) ?? [];
    if (flag === undefined || authzid === undefined || bare === undefined) return malformed("it has no GS2 header");
    this.#isBound = mechanism === scramPlusMechanism;
    const fault = this.#faultOfFlag(flag);
    if (fault !== undefined) return malformed(fault);
    if (authzid !== "") return malformed("it requests another authorization identity, which is not supported");
    const [, nonce] = /^n=[^,]*,r=([\x21-\x2b\x2d-\x7e]+)(?:,.*)?$/s.exec(bare) ?? [];
    if (nonce === undefined) return malformed("it does not start with a user name and a nonce");
    const { salt, iterations } = this.#verifier;
    this.#gs2Header = `${flag},${authzid},`;
    this.#nonce = nonce + this.#serverNonce;
    this.#firstBare = bare;
    this.#serverFirst = `r=${this.#nonce},s=${salt.toString("base64")},i=${iterations}`;
    return { kind: "go-on", reply: this.#serverFirst };
  }

  /** Processes the final message of the client, `c=header,r=nonce,p=proof`, after a successful {@link first}. */
  final(message: string): ScramStep {
    const [, withoutProof, binding, nonce, encoded] =
      /^(c=([^,]*),r=([^,]*)(?:,.*)?),p=([A-Za-z0-9+/]{43}=)$/s.exec(message) ?? [];
    if (withoutProof === undefined || encoded === undefined)
      return malformed("it lacks channel binding, nonce or proof");
    const header = Buffer.from(this.#gs2Header);
    const bound = Buffer.from(binding ?? "", "base64");
    const hash = bound.subarray(header.length);
    if (
      bound.toString("base64") !== binding ||
      !bound.subarray(0, header.length).equals(header) ||
      (!this.#isBound && hash.length > 0)
    ) {
      return malformed("its channel binding differs from that of its first message");
    }
    if (nonce !== this.#nonce) return malformed("its nonce differs from the agreed one");
    const { storedKey, serverKey } = this.#verifier;
    const authMessage = `${this.#firstBare},${this.#serverFirst},${withoutProof}`;
    const clientKey = hmac(storedKey, authMessage);
    const proof = Buffer.from(encoded, "base64");
    for (let i = 0; i < keyBytes; i++) clientKey[i]! ^= proof[i]!;
    const serverSignature = hmac(serverKey, authMessage).toString("base64");
    if (!timingSafeEqual(createHash("sha256").update(clientKey).digest(), storedKey)) return { kind: "refused" };
    if (this.#isBound && !isHashOf(this.#certificate!, hash)) return { kind: "other-channel" };
    return { kind: "go-on", reply: `v=${serverSignature}` };
  }

  #faultOfFlag(flag: string): string | undefined {
    if (this.#isBound) return flag === bindingFlag ? undefined : "it does not bind the channel by tls-server-end-point";
    if (flag.startsWith("p=")) return "it requests channel binding, but chose a mechanism without it";
    if (flag !== "n" && flag !== "y") return "its GS2 header starts with neither n nor y";
    // "y": the client supports channel binding, and was told that the server does not.
    if (flag === "n" || this.#certificate === undefined) return undefined;
    return "it says that channel binding was not offered, although it was: a third party has changed the offer";
  }
}

function hmac(key: Uint8Array, message: string): Buffer {
  return createHmac("sha256", key).update(message).digest();
}

function malformed(reason: string): ScramStep {
  return { kind: "malformed", reason };
}

/**
 * The supported channel binding, as it appears in the client's first message (RFC 5929): the client proves which
 * certificate it was shown, by its hash. A proxy that ends TLS with another certificate cannot pass a login on.
 */
const bindingFlag = "p=tls-server-end-point";

/** Hash algorithms by length of the hash. For certificates signed with MD5 or SHA-1, SHA-256 is used. */
const algorithms: Readonly<Record<number, string>> = { 28: "sha224", 32: "sha256", 48: "sha384", 64: "sha512" };

/**
 * True if `hash` is a hash of the certificate. RFC 5929 derives the hash algorithm from the signature algorithm of the
 * certificate. Here the length of the hash selects the algorithm, because any secure hash proves the same.
 *
 * @param certificate DER
 */
function isHashOf(certificate: Uint8Array, hash: Uint8Array): boolean {
  const algorithm = algorithms[hash.length];
  return algorithm !== undefined && timingSafeEqual(createHash(algorithm).update(certificate).digest(), hash);
}

/** Bytes before the signature in certificates that are signed with Ed25519 or Ed448: signature algorithm and length. */
const hashless = [
  { end: Buffer.from("300506032b6570034100", "hex"), signatureBytes: 64 },
  { end: Buffer.from("300506032b6571037300", "hex"), signatureBytes: 114 },
];

/**
 * True if libpq supports channel binding with the certificate. It does not for the signature algorithms Ed25519 and
 * Ed448, which have no hash.
 *
 * @param certificate DER
 */
export function isBindable(certificate: Uint8Array): boolean {
  return !hashless.some(({ end, signatureBytes }) => {
    const at = certificate.length - signatureBytes - end.length;
    return at >= 0 && end.equals(certificate.subarray(at, at + end.length));
  });
}
