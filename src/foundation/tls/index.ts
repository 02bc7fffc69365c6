/** Certificates, keys and authorities of peers and of `hawser serve`, kept in sync with their files. */
export { TlsCredentials } from "./tls-credentials.js";
export type { PemSource, TlsMaterial, TlsOptions } from "./tls-material.js";
