/**
 * Credentials for the NATS server, from the options or from the files that they name.
 */
import { createPrivateKey, type KeyObject, X509Certificate } from "node:crypto";
import { createSecureContext, type SecureContext } from "node:tls";
import { type Authenticator, jwtAuthenticator, nkeyAuthenticator, nkeys } from "@nats-io/transport-node";
import { HawserError } from "../../foundation/errors/index.js";
import { type Creds, type FileOption, type SecretFiles, secretFileError } from "./secret-files.js";
import { type ConnectionOptions, resolveAuth } from "./server-options.js";

/** Credentials of one connection. */
export interface Credentials {
  /**
   * Authenticator of nats.js, which sends the credentials. The secret is in its closure, where `inspect` does not show
   * it.
   */
  readonly authenticator: Authenticator;
  /** Description in error messages, such as "the token of option token_path". */
  readonly description: string;
  /** Removes every secret of these credentials from a text of the server. */
  readonly conceal: (text: string) => string;
  /** Likely reason why a server has just refused the credentials, as far as the credentials show it. */
  readonly fault?: () => CredentialsFault | undefined;
}

/** Fault of credentials with its remedy. */
interface CredentialsFault {
  /** Reason without a full stop, such as "it has expired at 2026-11-21T06:00:00.000Z". */
  readonly why: string;
  readonly remedy: string;
}

/**
 * Credentials of the first mode whose options are all set. Reads the file of that mode.
 *
 * @throws HawserError `secret_file`; `nats_unauthorized` for an invalid inline seed
 */
export async function readCredentials(
  options: ConnectionOptions,
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
      return { authenticator: () => undefined, description: "a client without credentials", conceal: (text) => text };
  }
}

function nkey(seed: string, option: string): Credentials {
  return {
    authenticator: nkeyAuthenticator(Buffer.from(seed)),
    description: `the NKey of option ${option}`,
    conceal: redactor(seed),
  };
}

/**
 * Credentials from a user JWT, and from the seed of its NKey, which signs the nonce of the server. Only the server
 * validates the JWT: its clock decides, and it knows what is revoked.
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
  const [concealJwt, concealSeed] = [redactor(jwt), redactor(seed)];
  return {
    authenticator: jwtAuthenticator(jwt, Buffer.from(seed)),
    description: `the JWT of option ${option}`,
    conceal: (text) => concealSeed(concealJwt(text)),
    fault: () => {
      if (isPast(exp)) return { why: `it has expired at ${dateOf(exp)}`, remedy: renewalRemedy };
      if (typeof nbf === "number" && !isPast(nbf)) {
        return { why: `it is valid from ${dateOf(nbf)} on`, remedy: "Check the clocks of both machines, or wait." };
      }
      return {
        why: "it may be revoked, or its account may be unknown to the server",
        remedy: `The server's log has the reason. ${renewalRemedy}`,
      };
    },
  };
}

const renewalRemedy = "Replace the .creds file by a renewed one; it is read again at each attempt.";

interface Claims {
  readonly sub?: unknown;
  readonly exp?: unknown;
  readonly nbf?: unknown;
}

/** Claims of a JWT, without verification; undefined if the text is not a JWT. */
function claimsOf(jwt: string): Claims | undefined {
  try {
    const claims: unknown = JSON.parse(Buffer.from(jwt.split(".")[1] ?? "", "base64url").toString("utf8"));
    return typeof claims === "object" && claims !== null ? claims : undefined;
  } catch {
    return undefined;
  }
}

/** True if a time claim has passed. @param seconds claim; 0 or undefined means that there is no such time */
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
    description: `the token of option ${option}`,
    conceal: redactor(secret),
  };
}

/**
 * Credentials with a password. The user name may be empty if the password is an access token; the `user` option of
 * nats.js would then send nothing.
 */
function userAndPassword(user: string, pass: string, option: string): Credentials {
  return {
    authenticator: () => ({ user, pass }),
    description: `the user name and password of options username and ${option}`,
    conceal: redactor(pass),
  };
}

/**
 * Minimum length of secrets that are removed everywhere. Shorter ones are removed only as whole words, because removing
 * them everywhere would make texts unreadable.
 */
const minConcealedEverywhere = 6;

function redactor(secret: string): (text: string) => string {
  if (secret === "") return (text) => text;
  if (secret.length >= minConcealedEverywhere) return (text) => text.replaceAll(secret, "[hidden]");
  const escaped = secret.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&");
  const asWord = new RegExp(`(?<![\\p{L}\\p{N}_])${escaped}(?![\\p{L}\\p{N}_])`, "gu");
  return (text) => text.replace(asWord, "[hidden]");
}

function isUserSeed(seed: string): boolean {
  try {
    return nkeys.fromSeed(Buffer.from(seed)).getPublicKey().startsWith("U");
  } catch {
    return false;
  }
}

/** TLS settings from the files of the options: authorities, certificate and key. */
export interface TlsMaterial {
  /** Certificates and key. Node.js does not show the content of a context. */
  readonly context: SecureContext;
  /** False with `tls_insecure`: the server's certificate is not verified. */
  readonly verify: boolean;
  /** True if there is a client certificate. */
  readonly hasCertificate: boolean;
}

/**
 * Reads the TLS files of the options. Undefined if TLS is off; it is on if `tls_ca_path` is set or `tls_insecure` is
 * true.
 *
 * @throws HawserError `secret_file` for a file that cannot be read or contains no PEM, or if certificate and key do not
 * match
 */
export async function readTls(
  options: ConnectionOptions,
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
    throw secretFileError(
      cert === undefined ? "tls_ca_path" : "tls_cert_path",
      `TLS cannot use it: ${reasonOf(error)}`,
    );
  }
  return { context, verify: !tls_insecure, hasCertificate: cert !== undefined };
}

const certificateForm = /-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----/gs;

function certificatesOf(option: FileOption, pem: Buffer): X509Certificate[] {
  const texts = pem.toString("latin1").match(certificateForm);
  if (texts === null) throw secretFileError(option, "the file contains no PEM certificate (BEGIN CERTIFICATE)");
  return texts.map((text) => {
    try {
      return new X509Certificate(text);
    } catch {
      throw secretFileError(option, "the file contains a damaged certificate");
    }
  });
}

function checkPair(cert: Buffer, key: Buffer): void {
  const [own] = certificatesOf("tls_cert_path", cert);
  let privateKey: KeyObject;
  try {
    privateKey = createPrivateKey({ key, format: "pem" });
  } catch {
    const encrypted = key.includes("ENCRYPTED") ? "; it is encrypted, which is not supported" : "";
    throw secretFileError("tls_key_path", `the file contains no readable PEM private key${encrypted}`);
  }
  if (!own!.checkPrivateKey(privateKey)) {
    throw secretFileError("tls_key_path", "it is not the key of the first certificate in tls_cert_path");
  }
}

function reasonOf(error: unknown): string {
  return (error as { readonly reason?: string }).reason ?? (error as Error).message;
}
