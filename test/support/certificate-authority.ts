/**
 * An authority that issues certificates, made on the spot: a test of TLS needs keys, and a repository should hold none.
 */
import { constants, generateKeyPairSync, type KeyObject, randomBytes, sign } from "node:crypto";
import { isIPv4, isIPv6 } from "node:net";

/** A certificate and its key. */
export interface Issued {
  /** PEM. */
  readonly cert: string;
  /** PEM, PKCS #8. */
  readonly key: string;
}

/** Deviations of a certificate from an ordinary one. */
export interface IssueOptions {
  /** Days from now. Default: from yesterday until tomorrow. */
  readonly fromDays?: number;
  readonly untilDays?: number;
  /** Permitted usage. Default: the certificate has no statement of it, so any. */
  readonly usage?: "server" | "client";
  /** Encrypts the key. */
  readonly passphrase?: string;
}

const oid = {
  commonName: [0x55, 0x04, 0x03],
  basicConstraints: [0x55, 0x1d, 0x13],
  subjectAltName: [0x55, 0x1d, 0x11],
  extendedKeyUsage: [0x55, 0x1d, 0x25],
  server: [0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x01],
  client: [0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02],
};

/**
 * Signature algorithms of authorities, in DER and for Node. An authority's key and those that it certifies are of the
 * same kind.
 */
const signatures = {
  "ecdsa-sha256": { algorithm: "300a06082a8648ce3d040302", hash: "sha256" },
  "ecdsa-sha384": { algorithm: "300a06082a8648ce3d040303", hash: "sha384" },
  "rsa-sha256": { algorithm: "300d06092a864886f70d01010b0500", hash: "sha256" },
  "rsa-sha512": { algorithm: "300d06092a864886f70d01010d0500", hash: "sha512" },
  "rsa-pss-sha256": {
    algorithm:
      "304106092a864886f70d01010a3034a00f300d06096086480165030402010500" +
      "a11c301a06092a864886f70d010108300d06096086480165030402010500a203020120",
    hash: "sha256",
  },
  ed25519: { algorithm: "300506032b6570", hash: null },
} as const;

/** By which algorithm certificates are signed. */
export type SignatureName = keyof typeof signatures;

/** Issues certificates; its own is PEM in `certificate`. */
export class CertificateAuthority {
  readonly certificate: string;
  readonly #keys: KeyPair;

  readonly #name;
  readonly #signature: SignatureName;

  constructor(name = "Test authority", signature: SignatureName = "ecdsa-sha256") {
    this.#name = name;
    this.#signature = signature;
    this.#keys = keyPair(signature);
    const isAuthority = extension(oid.basicConstraints, der(0x30, der(0x01, [0xff])));
    this.certificate = this.#signed(name, this.#keys.publicKey, [isAuthority], {});
  }

  /** Issues a certificate for host names and IP addresses. */
  issue(hosts: readonly string[], options: IssueOptions = {}): Issued {
    const { privateKey, publicKey } = keyPair(this.#signature);
    const extensions = [extension(oid.subjectAltName, der(0x30, ...hosts.map(generalName)))];
    if (options.usage !== undefined) {
      extensions.push(extension(oid.extendedKeyUsage, der(0x30, der(0x06, oid[options.usage]))));
    }
    const encrypted = options.passphrase && { cipher: "aes-256-cbc", passphrase: options.passphrase };
    return {
      cert: this.#signed(hosts[0] ?? "nobody", publicKey, extensions, options),
      key: privateKey.export({ type: "pkcs8", format: "pem", ...encrypted }) as string,
    };
  }

  #signed(
    subject: string,
    publicKey: KeyObject,
    extensions: readonly Buffer[],
    { fromDays = -1, untilDays = 1 }: IssueOptions,
  ): string {
    const { hash } = signatures[this.#signature];
    const algorithm = Buffer.from(signatures[this.#signature].algorithm, "hex");
    const toSign = der(
      0x30,
      der(0xa0, der(0x02, [2])),
      der(0x02, Buffer.from([1]), randomBytes(8)),
      algorithm,
      nameOf(this.#name),
      der(0x30, utcTime(fromDays), utcTime(untilDays)),
      nameOf(subject),
      publicKey.export({ type: "spki", format: "der" }),
      der(0xa3, der(0x30, ...extensions)),
    );
    const pss = { padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: 32 };
    const key = { key: this.#keys.privateKey, ...(this.#signature.startsWith("rsa-pss") && pss) };
    const signature = der(0x03, [0], sign(hash, toSign, key));
    const base64 = der(0x30, toSign, algorithm, signature).toString("base64");
    return `-----BEGIN CERTIFICATE-----\n${base64.replace(/.{64}(?=.)/g, "$&\n")}\n-----END CERTIFICATE-----\n`;
  }
}

interface KeyPair {
  readonly privateKey: KeyObject;
  readonly publicKey: KeyObject;
}

function keyPair(signature: SignatureName): KeyPair {
  if (signature === "ed25519") return generateKeyPairSync("ed25519");
  if (signature.startsWith("rsa")) return generateKeyPairSync("rsa", { modulusLength: 2048 });
  return generateKeyPairSync("ec", { namedCurve: "P-256" });
}

function nameOf(commonName: string): Buffer {
  return der(0x30, der(0x31, der(0x30, der(0x06, oid.commonName), der(0x0c, Buffer.from(commonName)))));
}

function extension(id: readonly number[], value: Buffer): Buffer {
  return der(0x30, der(0x06, id), der(0x04, value));
}

function generalName(host: string): Buffer {
  if (isIPv4(host)) return der(0x87, host.split(".").map(Number));
  if (isIPv6(host)) throw new Error("this authority knows no IPv6 addresses");
  return der(0x82, Buffer.from(host));
}

/** Encodes a value in DER: tag, length, content. */
function der(tag: number, ...parts: readonly (Uint8Array | readonly number[])[]): Buffer {
  const content = Buffer.concat(parts.map((part) => Buffer.from(part)));
  return Buffer.concat([Buffer.from([tag, ...lengthOf(content)]), content]);
}

/** In the fewest bytes: Go accepts no others. */
function lengthOf({ length }: Buffer): number[] {
  if (length < 0x80) return [length];
  return length < 0x100 ? [0x81, length] : [0x82, length >> 8, length & 0xff];
}

function utcTime(days: number): Buffer {
  const time = new Date(Date.now() + days * 24 * 60 * 60 * 1000);
  return der(0x17, Buffer.from(`${time.toISOString().replace(/[-:T]/g, "").slice(2, 14)}Z`));
}
