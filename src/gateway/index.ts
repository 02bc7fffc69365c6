/**
 * The gateway that answers the generated SQL functions.
 */
export { AddressBook } from "./address-book.js";
export { Gateway, type GatewayIdentity } from "./gateway.js";
export type { GatewayAddress } from "./gateway-table.js";
export { isBindable } from "./protocol/index.js";
