/**
 * What proves to the NATS server who we are: the options' own words, or what their files hold now.
 */
import { createPrivateKey, type KeyObject, X509Certificate } from "node:crypto";
import { createSecureContext, type SecureContext } from "node:tls";
import { type Authenticator, jwtAuthenticator, nkeyAuthenticator, nkeys } from "@nats-io/transport-node";
import { type CompleteNatsServerOptions, resolveAuth } from "../../generated/ts/nats-options/index.js";
import { HawserError } from "../errors/index.js";
import { type Creds, type FileOption, type SecretFiles, secretFileError } from "./secret-files.js";

/** How to authenticate once. */
export interface Credentials {
  /** Says it to the server. Holds the secret where no inspection shows it. */
  readonly authenticator: Authenticator;
  /** What is said, for messages: "the token of option token_path". */
  readonly words: string;
  /** The text with every secret of these credentials taken out, for what the server says. */
  readonly conceal: (text: string) => string;
  /** Why a server refuses them now, as far as they tell it themselves. */
  readonly fault?: () => CredentialsFault | undefined;
}

/** What is wrong with credentials, and what to do. */
interface CredentialsFault {
  /** Without a full stop, such as "it has expired at 2026-11-21T06:00:00.000Z". */
  readonly why: string;
  readonly remedy: string;
}

/**
 * The credentials of the options: the first of the modes whose options are all set. Reads its file.
 *
 * @throws HawserError `secret_file`, or `nats_unauthorized` for an inline seed that is none
 */
export async function readCredentials(
  options: CompleteNatsServerOptions,
  files: SecretFiles,
  signal: AbortSignal,
): Promise<Credentials> {
  const auth = resolveAuth(options);
  switch (auth.mode) {
    case "creds_path":
      return creds(await files.readCreds(auth.mode, auth.creds_path, signal));
    case "nkey_seed_path": {
      const seed = await files.readSecret(auth.mode, auth.nkey_seed_path, signal);
      if (!isUserSeed(seed)) throw secretFileError(auth.mode, "the file does not hold an NKey seed of a user (SU…)");
      return nkey(seed, auth.mode);
    }
    case "nkey_seed": {
      if (!isUserSeed(auth.nkey_seed)) {
        const message = 'option "nkey_seed" is not an NKey seed of a user (SU…)';
        throw new HawserError("nats_unauthorized", message, { detail: `${message}: its checksum is wrong.` });
      }
      return nkey(auth.nkey_seed, auth.mode);
    }
    case "token_path":
      return token(await files.readSecret(auth.mode, auth.token_path, signal), auth.mode);
    case "token":
      return token(auth.token, auth.mode);
    case "user_password_path": {
      const password = await files.readSecret("password_path", auth.password_path, signal);
      return userAndPassword(auth.username, password, "password_path");
    }
    case "user_password":
      return userAndPassword(auth.username, auth.password, "password");
    case "none":
      return { authenticator: () => undefined, words: "a client without credentials", conceal: (text) => text };
  }
}

function nkey(seed: string, option: string): Credentials {
  return {
    authenticator: nkeyAuthenticator(Buffer.from(seed)),
    words: `the NKey of option ${option}`,
    conceal: without(seed),
  };
}

/**
 * A JWT of a user and the seed of its NKey, which signs what the server asks. The server alone judges the JWT: its clock
 * counts, and it knows what was revoked.
 */
function creds({ jwt, seed }: Creds): Credentials {
  const option = "creds_path";
  if (!isUserSeed(seed)) throw secretFileError(option, "its seed is not the NKey seed of a user (SU…)");
  const { sub, exp, nbf } = claimsOf(jwt) ?? {};
  if (typeof sub !== "string" || !sub.startsWith("U")) {
    throw secretFileError(option, "its JWT is not that of a NATS user; write the file with `nsc generate creds`");
  }
  if (nkeys.fromSeed(Buffer.from(seed)).getPublicKey() !== sub) {
    throw secretFileError(option, "its JWT and its seed belong to different users");
  }
  const [concealJwt, concealSeed] = [without(jwt), without(seed)];
  return {
    authenticator: jwtAuthenticator(jwt, Buffer.from(seed)),
    words: `the JWT of option ${option}`,
    conceal: (text) => concealSeed(concealJwt(text)),
    fault: () => {
      if (isPast(exp)) return { why: `it has expired at ${dateOf(exp)}`, remedy: renewed };
      if (typeof nbf === "number" && !isPast(nbf)) {
        return { why: `it is valid from ${dateOf(nbf)} on`, remedy: "Check the clocks of both machines, or wait." };
      }
      return {
        why: "it may be revoked, or of an account that the server does not know",
        remedy: `See why in the server's log. ${renewed}`,
      };
    },
  };
}

const renewed = "Put a renewed .creds file in its place: it is read again at each attempt.";

interface Claims {
  readonly sub?: unknown;
  readonly exp?: unknown;
  readonly nbf?: unknown;
}

/** What the JWT says, unchecked; undefined if it is none. */
function claimsOf(jwt: string): Claims | undefined {
  try {
    const claims: unknown = JSON.parse(Buffer.from(jwt.split(".")[1] ?? "", "base64url").toString("utf8"));
    return typeof claims === "object" && claims !== null ? claims : undefined;
  } catch {
    return undefined;
  }
}

/** @param seconds of a claim; 0 or none: there is no such time */
function isPast(seconds: unknown): seconds is number {
  return typeof seconds === "number" && seconds > 0 && seconds * 1000 <= Date.now();
}

function dateOf(seconds: number): string {
  const date = new Date(seconds * 1000);
  return Number.isNaN(date.getTime()) ? "no date" : date.toISOString();
}

function token(secret: string, option: string): Credentials {
  return {
    authenticator: () => ({ auth_token: secret }),
    words: `the token of option ${option}`,
    conceal: without(secret),
  };
}

/** The user may be empty, where the password is an access token; nats.js's own option would then say nothing. */
function userAndPassword(user: string, pass: string, option: string): Credentials {
  return {
    authenticator: () => ({ user, pass }),
    words: `the user name and password of options username and ${option}`,
    conceal: without(pass),
  };
}

/** Secrets with fewer characters are concealed as whole words only: everywhere, they would make any text unreadable. */
const minConcealedEverywhere = 6;

function without(secret: string): (text: string) => string {
  if (secret === "") return (text) => text;
  if (secret.length >= minConcealedEverywhere) return (text) => text.replaceAll(secret, "[hidden]");
  const itself = secret.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&");
  const asWord = new RegExp(`(?<![\\p{L}\\p{N}_])${itself}(?![\\p{L}\\p{N}_])`, "gu");
  return (text) => text.replace(asWord, "[hidden]");
}

function isUserSeed(seed: string): boolean {
  try {
    return nkeys.fromSeed(Buffer.from(seed)).getPublicKey().startsWith("U");
  } catch {
    return false;
  }
}

/** What TLS with the NATS server is made of, as the options' files are now: authorities, certificate and key, ready to use. */
export interface TlsMaterial {
  /** Node shows nothing of its content. */
  readonly context: SecureContext;
  /** Whether the server's certificate is checked: not with `tls_insecure`. */
  readonly verify: boolean;
  /** Whether we have a certificate to show. */
  readonly hasCertificate: boolean;
}

/**
 * Reads the TLS files of the options. Undefined where TLS is off: it is on if `tls_ca_path` is set or `tls_insecure` is
 * true.
 *
 * @throws HawserError `secret_file` for a file that cannot be read, holds no PEM, or does not belong to the other
 */
export async function readTls(
  options: CompleteNatsServerOptions,
  files: SecretFiles,
  signal: AbortSignal,
): Promise<TlsMaterial | undefined> {
  const { tls_ca_path, tls_cert_path, tls_key_path, tls_insecure } = options;
  if (tls_ca_path === undefined && !tls_insecure) return undefined;
  const read = (option: FileOption, path: string | undefined): Promise<Buffer> | undefined =>
    path === undefined ? undefined : files.read(option, path, signal);
  const ca = await read("tls_ca_path", tls_ca_path);
  const cert = await read("tls_cert_path", tls_cert_path);
  const key = await read("tls_key_path", tls_key_path);
  if (ca !== undefined) certificatesOf("tls_ca_path", ca);
  if (cert !== undefined && key !== undefined) checkPair(cert, key);
  let context: SecureContext;
  try {
    context = createSecureContext({ ...(ca && { ca }), ...(cert && { cert }), ...(key && { key }) });
  } catch (error) {
    throw secretFileError(cert === undefined ? "tls_ca_path" : "tls_cert_path", `TLS refuses it: ${reasonOf(error)}`);
  }
  return { context, verify: !tls_insecure, hasCertificate: cert !== undefined };
}

const certificateForm = /-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----/gs;

function certificatesOf(option: FileOption, pem: Buffer): X509Certificate[] {
  const texts = pem.toString("latin1").match(certificateForm);
  if (texts === null) throw secretFileError(option, "the file holds no certificate in PEM (BEGIN CERTIFICATE)");
  return texts.map((text) => {
    try {
      return new X509Certificate(text);
    } catch {
      throw secretFileError(option, "the file holds a damaged certificate");
    }
  });
}

function checkPair(cert: Buffer, key: Buffer): void {
  const [own] = certificatesOf("tls_cert_path", cert);
  let privateKey: KeyObject;
  try {
    privateKey = createPrivateKey({ key, format: "pem" });
  } catch {
    const encrypted = key.includes("ENCRYPTED") ? "; it is encrypted, and must not be" : "";
    throw secretFileError("tls_key_path", `the file holds no private key in PEM that can be read${encrypted}`);
  }
  if (!own!.checkPrivateKey(privateKey)) {
    throw secretFileError("tls_key_path", "it is not the key of the first certificate in tls_cert_path");
  }
}

function reasonOf(error: unknown): string {
  return (error as { readonly reason?: string }).reason ?? (error as Error).message;
}
