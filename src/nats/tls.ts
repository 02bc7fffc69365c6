/**
 * What TLS with the NATS server is made of, as the options' files are now.
 */
import { createPrivateKey, type KeyObject, X509Certificate } from "node:crypto";
import { createSecureContext, type SecureContext } from "node:tls";
import type { CompleteNatsServerOptions } from "../../generated/ts/nats-options/index.js";
import { type FileOption, type SecretFiles, secretFileError } from "./secret-files.js";

/** Authorities, certificate and key, ready to use. */
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
 * @throws NatsError `secret_file` for a file that cannot be read, holds no PEM, or does not belong to the other
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
