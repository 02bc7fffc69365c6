/**
 * Messages of one subject as the bytes that the NATS protocol has for them (PUB, or HPUB with headers).
 */

const carriageReturn = 0x0d;
const lineFeed = 0x0a;
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
  let capacity = payloads.length * (start.length + maxDigits + headerBytes + 4);
  for (const { length } of payloads) capacity += length;
  const frames = Buffer.allocUnsafe(capacity);
  let end = 0;
  for (const payload of payloads) {
    frames.set(start, end);
    end += start.length;
    end = writeDecimal(frames, headerBytes + payload.length, end);
    frames[end++] = carriageReturn;
    frames[end++] = lineFeed;
    if (headers !== undefined) {
      frames.set(headers, end);
      end += headerBytes;
    }
    frames.set(payload, end);
    end += payload.length;
    frames[end++] = carriageReturn;
    frames[end++] = lineFeed;
  }
  return frames.subarray(0, end);
}

/** Writes the digits of a whole number, without a string between, and returns where they end. */
function writeDecimal(target: Buffer, value: number, start: number): number {
  let end = start + 1;
  for (let rest = value; rest >= 10; rest = Math.floor(rest / 10)) end++;
  let rest = value;
  for (let at = end - 1; at >= start; at--) {
    target[at] = 0x30 + (rest % 10);
    rest = Math.floor(rest / 10);
  }
  return end;
}
