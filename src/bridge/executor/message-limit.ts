/**
 * A bound for what Postgres sends in one piece. A function can make its error or its answer almost a gigabyte long; the
 * driver keeps all of it and makes it a string, which ends the process where it is longer than a string can be.
 */
import type { Duplex } from "node:stream";

/** Of each message of Postgres's protocol: its type, and its length without that, as u32 big-endian. */
const headBytes = 5;

/**
 * Ends the connection, with an error that says so, before the driver keeps a message that is too long. To be called between
 * two messages, and after TLS has been agreed on.
 */
export function limitMessages(stream: Duplex, maxBytes: number): void {
  const head = Buffer.alloc(headBytes);
  let headHas = 0;
  let left = 0;
  stream.prependListener("data", (chunk: Buffer) => {
    for (let at = 0; at < chunk.length; ) {
      if (left > 0) {
        const passed = Math.min(left, chunk.length - at);
        left -= passed;
        at += passed;
        continue;
      }
      const taken = chunk.copy(head, headHas, at, at + headBytes - headHas);
      headHas += taken;
      at += taken;
      if (headHas < headBytes) return;
      headHas = 0;
      left = head.readUInt32BE(1) - (headBytes - 1);
      if (left > maxBytes) {
        const message = `a function gave an error or an answer of ${left} bytes, and at most ${maxBytes} are taken: its session was ended`;
        stream.destroy(new Error(message));
        return;
      }
    }
  });
}
