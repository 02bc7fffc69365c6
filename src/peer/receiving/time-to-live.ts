/** Time to live of a message, which a header has. */
import { protocolConstants } from "../../../generated/ts/settings/peer.js";
import { type Headers, headerValue } from "../../channel/index.js";

/** Last checked headers without a time to live. */
let lastWithoutExpiry: Headers | undefined;

/** Time in ms since a message with these headers expired; 0 or negative if it has not expired. */
export function expiredMs(headers: Headers): number {
  if (headers === lastWithoutExpiry) return 0;
  const until = expiresAt(headers);
  if (until !== Infinity) return Date.now() - until;
  lastWithoutExpiry = headers;
  return 0;
}

/** Time in ms since 1970 at which a message with these headers expires; Infinity if it does not. */
export function expiresAt(headers: Headers): number {
  return Number(headerValue(headers, protocolConstants.messageExpiresHeader) ?? Infinity);
}
