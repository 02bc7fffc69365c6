/**
 * SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, RFC 7677), the server's side. Passwords are printable ASCII, for which
 * SASLprep changes nothing.
 */
import { createHash, createHmac, pbkdf2, randomBytes, timingSafeEqual } from "node:crypto";
import { promisify } from "node:util";
import { HawserError } from "../../errors/index.js";

/** The name of the mechanism without channel binding. */
const scramMechanism = "SCRAM-SHA-256";

/** With channel binding: only over TLS. */
export const scramPlusMechanism = "SCRAM-SHA-256-PLUS";

const keyBytes = 32;
const saltBytes = 16;
const derive = promisify(pbkdf2);

/** What a server keeps of a password: the password cannot be found from it other than by guessing. */
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
      "the password of the gateway must be printable ASCII and not empty; `hawser init` makes one",
    );
  }
  const salted = await derive(password, salt, iterations, keyBytes, "sha256");
  const storedKey = createHash("sha256").update(hmac(salted, "Client Key")).digest();
  return { salt, iterations, storedKey, serverKey: hmac(salted, "Server Key") };
}

/**
 * A verifier that no password fits, for users that do not exist: each has the same salt whenever it asks, as one that
 * exists has.
 *
 * @param secret random bytes that stay the same as long as the salts of real users do
 */
export function mockVerifierOf(secret: Uint8Array, user: string, iterations: number): ScramVerifier {
  const salt = hmac(secret, user).subarray(0, saltBytes);
  return { salt, iterations, storedKey: randomBytes(keyBytes), serverKey: randomBytes(keyBytes) };
}

/** What a step of the exchange came to. */
export type ScramStep =
  | { readonly kind: "go-on"; readonly reply: string }
  /** The client's message breaks the rules. */
  | { readonly kind: "malformed"; readonly reason: string }
  /** The client does not know the password. */
  | { readonly kind: "refused" }
  /** The client knows the password, and was shown another certificate than ours. */
  | { readonly kind: "other-channel" };

/** One exchange: the client's first message, then its final one. */
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
   * @param serverNonce printable ASCII without commas; never used twice
   * @param certificate DER: ours of this connection. Without it channel binding is not offered
   */
  constructor(verifier: ScramVerifier, serverNonce: string, certificate?: Uint8Array) {
    this.#verifier = verifier;
    this.#serverNonce = serverNonce;
    this.#certificate = certificate;
  }

  /** The mechanisms to offer, the best first. */
  get mechanisms(): readonly string[] {
    return this.#certificate === undefined ? [scramMechanism] : [scramPlusMechanism, scramMechanism];
  }

  /**
   * Takes `n,,n=user,r=nonce`. The user name in it counts for nothing: that of the startup message does.
   *
   * @param mechanism the one of `mechanisms` that the client chose
   */
  first(message: string, mechanism = scramMechanism): ScramStep {
    const [, flag, authzid, bare] = /^([^,]*),([^,]*),(.*)$/s.exec(message) ?? [];
    if (flag === undefined || authzid === undefined || bare === undefined) return malformed("it has no GS2 header");
    this.#isBound = mechanism === scramPlusMechanism;
    const fault = this.#faultOfFlag(flag);
    if (fault !== undefined) return malformed(fault);
    if (authzid !== "") return malformed("it asks to act as another user, which is not supported");
    const [, nonce] = /^n=[^,]*,r=([\x21-\x2b\x2d-\x7e]+)(?:,.*)?$/s.exec(bare) ?? [];
    if (nonce === undefined) return malformed("it has no user name and nonce where they belong");
    const { salt, iterations } = this.#verifier;
    this.#gs2Header = `${flag},${authzid},`;
    this.#nonce = nonce + this.#serverNonce;
    this.#firstBare = bare;
    this.#serverFirst = `r=${this.#nonce},s=${salt.toString("base64")},i=${iterations}`;
    return { kind: "go-on", reply: this.#serverFirst };
  }

  /** Takes `c=header,r=nonce,p=proof`, after {@link first} went on. */
  final(message: string): ScramStep {
    const [, withoutProof, binding, nonce, encoded] =
      /^(c=([^,]*),r=([^,]*)(?:,.*)?),p=([A-Za-z0-9+/]{43}=)$/s.exec(message) ?? [];
    if (withoutProof === undefined || encoded === undefined) return malformed("it has no binding, nonce and proof");
    const header = Buffer.from(this.#gs2Header);
    const bound = Buffer.from(binding ?? "", "base64");
    const hash = bound.subarray(header.length);
    if (
      bound.toString("base64") !== binding ||
      !bound.subarray(0, header.length).equals(header) ||
      (!this.#isBound && hash.length > 0)
    ) {
      return malformed("its channel binding is not that of its first message");
    }
    if (nonce !== this.#nonce) return malformed("its nonce is not the one agreed upon");
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
    if (flag.startsWith("p=")) return "it asks for channel binding, and has not chosen the mechanism for it";
    if (flag !== "n" && flag !== "y") return "its GS2 header begins with neither n nor y";
    // "y" says that the client could bind the channel, and heard that we cannot.
    if (flag === "n" || this.#certificate === undefined) return undefined;
    return "it says that channel binding was not offered, and it was: somebody between the two has changed the offer";
  }
}

function hmac(key: Uint8Array, message: string): Buffer {
  return createHmac("sha256", key).update(message).digest();
}

function malformed(reason: string): ScramStep {
  return { kind: "malformed", reason };
}

/**
 * The one kind of binding, as it stands in the client's first message (RFC 5929): the client proves which certificate it
 * was shown, as a hash of it. A program that ends TLS with another certificate in between cannot pass a login on.
 */
const bindingFlag = "p=tls-server-end-point";

/** By the length of the hash. MD5 and SHA-1 count as SHA-256. */
const algorithms: Readonly<Record<number, string>> = { 28: "sha224", 32: "sha256", 48: "sha384", 64: "sha512" };

/**
 * Whether it is the hash of the certificate. The algorithm that the certificate was signed with decides which one is
 * sent; any of those that are safe proves the same, so this looks at nothing but the length.
 *
 * @param certificate DER
 */
function isHashOf(certificate: Uint8Array, hash: Uint8Array): boolean {
  const algorithm = algorithms[hash.length];
  return algorithm !== undefined && timingSafeEqual(createHash(algorithm).update(certificate).digest(), hash);
}

/** How certificates end that were signed with Ed25519 and Ed448, up to the signature: its algorithm, its length. */
const hashless = [
  { end: Buffer.from("300506032b6570034100", "hex"), signatureBytes: 64 },
  { end: Buffer.from("300506032b6571037300", "hex"), signatureBytes: 114 },
];

/**
 * Whether libpq can bind a connection to the certificate: not where its authority signs with Ed25519 or Ed448, which
 * name no hash.
 *
 * @param certificate DER
 */
export function isBindable(certificate: Uint8Array): boolean {
  return !hashless.some(({ end, signatureBytes }) => {
    const at = certificate.length - signatureBytes - end.length;
    return at >= 0 && end.equals(certificate.subarray(at, at + end.length));
  });
}
