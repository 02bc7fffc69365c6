/**
 * Lines of a stream of bytes, whatever is in them.
 */
import { CliError } from "../errors/index.js";

const lineFeed = 0x0a;

/**
 * Splits at line feeds, which belong to no line; nothing else is changed. What follows the last one is a line, too,
 * unless it is empty.
 *
 * @throws CliError `invalid_argument` for a line of more than `maxBytes`: not more than that is kept in memory
 */
export async function* byteLines(chunks: AsyncIterable<Uint8Array>, maxBytes: number): AsyncGenerator<Uint8Array> {
  let parts: Uint8Array[] = [];
  let bytes = 0;
  let number = 1;
  const take = (part: Uint8Array): void => {
    bytes += part.length;
    if (bytes > maxBytes) {
      throw new CliError(
        "invalid_argument",
        `line ${number} is longer than ${maxBytes} bytes, the most that a message may have`,
      );
    }
    if (part.length > 0) parts.push(part);
  };
  for await (const chunk of chunks) {
    let from = 0;
    for (let end = chunk.indexOf(lineFeed); end !== -1; end = chunk.indexOf(lineFeed, from)) {
      take(chunk.subarray(from, end));
      yield parts.length === 1 ? parts[0]! : Buffer.concat(parts);
      parts = [];
      bytes = 0;
      number += 1;
      from = end + 1;
    }
    take(chunk.subarray(from));
  }
  if (bytes > 0) yield parts.length === 1 ? parts[0]! : Buffer.concat(parts);
}

/** All of a stream as one piece. @throws CliError `invalid_argument` if it has more than `maxBytes` */
export async function allBytes(chunks: AsyncIterable<Uint8Array>, maxBytes: number): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of chunks) {
    bytes += chunk.length;
    if (bytes > maxBytes) {
      throw new CliError(
        "invalid_argument",
        `standard input has more than ${maxBytes} bytes, the most that a message may have; --lines sends its lines one by one`,
      );
    }
    parts.push(chunk);
  }
  return Buffer.concat(parts);
}
