/** Messages as `hawser send`, `request` and `enqueue` take them: from an argument or standard input, with headers. */
import { fstatSync, type Stats } from "node:fs";
import { protocolConstants } from "../../../generated/ts/settings/peer.js";
import { HawserError } from "../../foundation/errors/index.js";
import { print } from "./output.js";

/**
 * Message from the command line or standard input. @throws HawserError `invalid_argument` for an empty standard input
 */
export async function messageOf(payload: string | undefined, base64: boolean): Promise<Uint8Array> {
  if (payload !== undefined && payload !== "-") return bytesOf(payload, base64);
  const input = standardInput();
  if (input.isTTY) print(process.stderr, "Type the message; end it with Ctrl-D on a line of its own.");
  const bytes = await allBytes(input, protocolConstants.maxStoredMessageBytes);
  if (bytes.length === 0) {
    throw new HawserError(
      "invalid_argument",
      "standard input was empty, and a message has at least one byte; give the message as an argument or by a pipe",
    );
  }
  return base64 ? decodeBase64(Buffer.from(bytes).toString("latin1")) : bytes;
}

/** Message that is given as an argument. @throws HawserError `invalid_argument` if it is not the base64 that it should be */
export function bytesOf(payload: string, base64: boolean): Uint8Array {
  return base64 ? decodeBase64(payload) : Buffer.from(payload);
}

/** Headers given as NAME=VALUE. @throws HawserError `invalid_argument` */
export function headersOf(values: readonly string[] = []): [string, string][] {
  return values.map((value) => {
    const at = value.indexOf("=");
    if (at < 1) throw new HawserError("invalid_argument", `--header "${value}" is not of the form NAME=VALUE`);
    return [value.slice(0, at), value.slice(at + 1)];
  });
}

/**
 * Standard input for reading messages.
 *
 * @throws HawserError `invalid_argument` if standard input is closed or a directory. Node.js would read a directory as
 * an empty input. On systems with /dev/null, Node.js opens that file in place of a closed input, which then counts as
 * empty and not as closed
 */
function standardInput(): NodeJS.ReadStream {
  const stat = statOf(0);
  if (stat === undefined || stat.isDirectory()) {
    throw new HawserError(
      "invalid_argument",
      `standard input is ${stat === undefined ? "closed" : "a directory"}; give a file or a pipe with the message`,
    );
  }
  return process.stdin;
}

function statOf(descriptor: number): Stats | undefined {
  try {
    return fstatSync(descriptor);
  } catch {
    return undefined;
  }
}

/** Concatenates a stream. @throws HawserError `invalid_argument` if it has more than `maxBytes` */
export async function allBytes(chunks: AsyncIterable<Uint8Array>, maxBytes: number): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of chunks) {
    bytes += chunk.length;
    if (bytes > maxBytes) {
      throw new HawserError(
        "invalid_argument",
        `standard input has more than ${maxBytes} bytes, the limit of a message`,
      );
    }
    parts.push(chunk);
  }
  return Buffer.concat(parts);
}

/** Decodes base64, ignoring white space. @throws HawserError `invalid_argument` */
function decodeBase64(text: string): Uint8Array {
  const dense = text.replace(/\s/g, "");
  if (!/^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/.test(dense)) {
    throw new HawserError("invalid_argument", "the message is not base64, although --base64 says so");
  }
  return Buffer.from(dense, "base64");
}
