/**
 * The text of a role-change notice, as subscribers parse it.
 */

/** What a notice says. */
export interface RoleNotice {
  /** `Replica` is a standby. */
  readonly status: "Master" | "Replica";
  /** `listen_addresses` of Postgres, of which `*` stays `*`. */
  readonly addresses: readonly string[];
  readonly port: number;
  /** How Patroni calls this Postgres; null where that cannot be had. */
  readonly name: string | null;
}

/** The JSON of a notice. The addresses are in it twice: one spelling is that of pgnats's code, the other of its README. */
export function roleNotice({ status, addresses, port, name }: RoleNotice): string {
  return JSON.stringify({ status, listen_adresses: addresses, listen_addresses: addresses, port, name });
}

/** The addresses in a value of `listen_addresses`, such as `127.0.0.1, ::1`. An empty one has none: sockets alone. */
export function splitAddresses(listenAddresses: string): string[] {
  return listenAddresses
    .split(",")
    .map((address) => address.trim())
    .filter((address) => address !== "");
}
