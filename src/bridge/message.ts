/**
 * A message of NATS on its way to SQL functions.
 */

/** As it was received. Never changed. */
export interface InboundMessage {
  /** Known to no other process: what this one does again with the message, it does under the same id. */
  readonly id: string;
  readonly subject: string;
  /** A copy of its own: the connection's buffers are used again. */
  readonly payload: Uint8Array;
  /** A JSON object of lists of strings, as text; undefined: the message has none. */
  readonly headers: string | undefined;
  /** Why there may be more headers than these; undefined: all could be read. */
  readonly headersProblem?: string | undefined;
  /** When it was received, by `performance.now()`. */
  readonly receivedAt: number;
  /** It came to the NATS server after this: the process stood still, and received it late. Default: `receivedAt`. */
  readonly notBefore?: number | undefined;
}

/** What a message counts for where memory is limited, in bytes. */
export function memoryOf({ subject, payload, headers }: InboundMessage): number {
  return payload.length + 2 * (subject.length + (headers?.length ?? 0)) + overheadBytes;
}

/** The objects around payload and subject. */
export const overheadBytes = 256;

/** The earlier of two moments, as far as there are any. */
export function earliest(one: number | undefined, other: number | undefined): number | undefined {
  if (one === undefined || other === undefined) return one ?? other;
  return Math.min(one, other);
}
