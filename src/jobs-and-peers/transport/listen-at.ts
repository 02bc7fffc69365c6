import { once } from "node:events";
import type { AddressInfo, Server } from "node:net";
import { errorMessageOf, HawserError } from "../../foundation/errors/index.js";
import { type Address, formatAddress } from "../wire/index.js";

/**
 * Makes a server listen at an address.
 *
 * @param cannot beginning of the error's message, such as "the page cannot be opened at"
 * @returns the address with the real port
 * @throws HawserError `bind_failed` if the address is unknown or in use
 */
export async function listenAt(server: Server, { host, port }: Address, cannot: string): Promise<Address> {
  try {
    server.listen({ host, port });
    // Rejects if the server emits an error.
    await once(server, "listening");
  } catch (cause) {
    const message = `${cannot} ${formatAddress({ host, port })}: ${errorMessageOf(cause)}`;
    throw new HawserError("bind_failed", message, { cause });
  }
  const bound = server.address() as AddressInfo;
  return { host: bound.address, port: bound.port };
}
