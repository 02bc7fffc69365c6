/** Payload of a message: decoded, as text, or as bytes in hexadecimal. */
import { html } from "hono/html";
import { type Descriptors, shownPayload } from "../../../protobuf/typed/index.js";
import type { WholeDeadLetter } from "../../operate/index.js";
import { block, type Html, short } from "./text.js";

/** Payload, and the headers that say its type. */
export type Content = Pick<WholeDeadLetter, "payload" | "headers">;

/** Number of bytes of a payload that are shown as text. */
const shownPayloadBytes = 64 * 1024;
/** Number of bytes that are shown of a payload that is not text. */
const shownHexBytes = 4 * 1024;
/** The largest typed payload that is decoded to be shown: decoded, it may take a hundred times as much memory. */
export const decodedPayloadBytes = 256 * 1024;

/** Shows the beginning of a payload, and says how much is left out. */
export function payloadBlock({ payload, headers }: Content, descriptors: Descriptors | undefined): Html {
  if (payload.length === 0) return html`<p>The payload is empty.</p>`;
  const isLong = payload.length > decodedPayloadBytes;
  const decoded = descriptors === undefined || isLong ? undefined : shownPayload(payload, headers, descriptors);
  if (decoded?.encoding === "json") {
    const text = JSON.stringify(decoded.payload, undefined, 2);
    const isCut = text.length > shownPayloadBytes;
    return html`<p>Message of the type ${short(decoded.type)}${isCut ? `; the first ${shownPayloadBytes} of ${text.length} characters of its JSON` : ""}:</p>
${block(isCut ? text.slice(0, shownPayloadBytes) : text, "Payload")}`;
  }
  const why =
    isLong && descriptors !== undefined
      ? `Messages of types are decoded up to ${decodedPayloadBytes} bytes; download it to decode it.`
      : decoded?.note;
  const note = why === undefined ? "" : html`<p class="warning">${short(why)}</p>`;
  const text = beginning(payload);
  if (text !== undefined) {
    return html`${note}<p>Text${cut(shownPayloadBytes, payload.length)}:</p>\n${block(text, "Payload")}`;
  }
  return html`${note}<p>Bytes in hexadecimal${cut(shownHexBytes, payload.length)}:</p>\n${block(hex(payload.subarray(0, shownHexBytes)), "Payload")}`;
}

function cut(shown: number, total: number): string {
  return total > shown ? `, the first ${shown} of ${total} bytes` : `, ${total} bytes`;
}

/** Text of the first `shownPayloadBytes`; undefined if they are not UTF-8. A character cut at the end is left out. */
function beginning(payload: Uint8Array): string | undefined {
  const isCut = payload.length > shownPayloadBytes;
  try {
    const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
    return decoder.decode(payload.subarray(0, shownPayloadBytes), { stream: isCut });
  } catch {
    return undefined;
  }
}

/** Lines of 16 bytes with their offset, as `hexdump` prints them. */
function hex(bytes: Uint8Array): string {
  const lines: string[] = [];
  for (let at = 0; at < bytes.length; at += 16) {
    const line = bytes.subarray(at, at + 16);
    const pairs = Array.from(line, (byte) => byte.toString(16).padStart(2, "0")).join(" ");
    const characters = Array.from(line, (byte) => (byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : ".")).join(
      "",
    );
    lines.push(`${at.toString(16).padStart(8, "0")}  ${pairs.padEnd(47)}  ${characters}`);
  }
  return lines.join("\n");
}
