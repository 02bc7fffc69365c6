/**
 * The numbers of calls, in what they carry: so every answer and every message shows which call it belongs to.
 */

/** A name for the `number`th call of a session, or for the `index`th message of that call. */
export function tokenOf(session: number, number: number, index?: number): string {
  return `${session}-${number}${index === undefined ? "" : `-${index}`}`;
}

/** Payload of a call: its token repeated, up to about 3,000 characters. */
export function payloadOf(token: string): string {
  const number = Number(token.split("-")[1]);
  const length = token.length + ((number * 997) % 3_000);
  return token.padEnd(length, `/${token}`);
}

/** The content of the call's file: up to three chunks of the object store. */
export function contentOf(token: string): Buffer {
  const number = Number(token.split("-")[1]);
  return Buffer.alloc(1 + ((number * 7_919) % 300_000), `${token}/`);
}

/** The token of what arrived; undefined if it is not whole, or holds anything else besides. */
export function tokenIn(payload: string): string | undefined {
  const [token = ""] = payload.split("/", 1);
  return payload === payloadOf(token) ? token : undefined;
}
