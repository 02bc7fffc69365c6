/**
 * The gateway that answers the generated SQL functions.
 */
export { AddressBook, type Placement } from "./address-book.js";
export { Gateway, type GatewayIdentity } from "./gateway.js";
export { type GatewayAddress, type GatewayEntry, type GatewayStanding, standings } from "./gateway-table.js";
export { isBindable } from "./protocol/index.js";
