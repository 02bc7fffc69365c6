/** Parameters of a connection that are checked here, not by the driver. */

export const tlsParameters = ["sslmode", "sslrootcert", "sslcert", "sslkey", "sslnegotiation"] as const;
export type TlsParameter = (typeof tlsParameters)[number];

export const tlsModes: readonly string[] = [
  "disable",
  "no-verify",
  "allow",
  "prefer",
  "require",
  "verify-ca",
  "verify-full",
];

/** Required kind of server for a session, in libpq's terms. */
export const sessionAttributes = ["any", "read-write", "read-only", "primary", "standby", "prefer-standby"] as const;
export type SessionAttributes = (typeof sessionAttributes)[number];

export const portRule = "a port is a number from 1 to 65535";

export function isPort(port: string): boolean {
  return /^\d+$/.test(port) && Number(port) > 0 && Number(port) < 65_536;
}
