/**
 * Many messages of one subject as the bytes that the NATS protocol has for them (PUB, or HPUB with headers).
 */

const lineEnd = Buffer.from("\r\n");
/** The digits of a length, at most: payloads are below 2^53 bytes. */
const maxDigits = 16;

/**
 * The messages, one after the other, in a buffer of their own.
 *
 * @param subject without white space, as `checkSubject` demands
 * @param headers as they travel, the empty line at their end included
 */
export function publishFrames(
  subject: string,
  reply: string | undefined,
  headers: Uint8Array | undefined,
  payloads: readonly Uint8Array[],
): Buffer {
  const headerBytes = headers?.length ?? 0;
  const command = headers === undefined ? "PUB" : "HPUB";
  const address = reply === undefined ? subject : `${subject} ${reply}`;
  const start = Buffer.from(`${command} ${address} ${headers === undefined ? "" : `${headerBytes} `}`);
  let capacity = 0;
  for (const { length } of payloads) capacity += start.length + maxDigits + headerBytes + length + 2 * lineEnd.length;
  const frames = Buffer.allocUnsafe(capacity);
  let end = 0;
  for (const payload of payloads) {
    frames.set(start, end);
    end += start.length;
    end += frames.write(String(headerBytes + payload.length), end, "latin1");
    frames.set(lineEnd, end);
    end += lineEnd.length;
    if (headers !== undefined) {
      frames.set(headers, end);
      end += headerBytes;
    }
    frames.set(payload, end);
    end += payload.length;
    frames.set(lineEnd, end);
    end += lineEnd.length;
  }
  return frames.subarray(0, end);
}
