/**
 * A received message as a line.
 */
import pc from "picocolors";
import type { Message } from "../peer/index.js";
import { base64Of, jsonText, printable, textOf } from "./printable.js";

/** For terminals alone: picocolors by itself colours what it writes into a pipe in CI, too. */
const colors = pc.createColors(process.stdout.isTTY === true && pc.isColorSupported);

/** How payloads are shown: as text where they are valid UTF-8 and else as base64, always as base64, or always as text. */
export type PayloadForm = "auto" | "base64" | "text";

/** A message as a line of JSON, its end included. */
export function jsonLine(message: Message, form: PayloadForm): string {
  const { to, from, sender, headers, attempt, delivery } = message;
  const { payload, encoding } = shown(message.payload, form);
  return `${jsonText({ to, from, sender, headers, payload, encoding, attempt, delivery })}\n`;
}

/** A message as a line for people, its end included: topic, sender, payload; nothing in it that a terminal obeys. */
export function plainLine(message: Message, form: PayloadForm): string {
  const { payload, encoding } = shown(message.payload, form);
  const text = encoding === "base64" && form === "auto" ? `base64 ${payload}` : printable(payload);
  return `${colors.dim(printable(message.to))} ${colors.cyan(printable(message.sender))} ${text}\n`;
}

function shown(
  bytes: Uint8Array,
  form: PayloadForm,
): { readonly payload: string; readonly encoding: "utf8" | "base64" } {
  if (form === "text") return { payload: Buffer.from(bytes).toString("utf8"), encoding: "utf8" };
  const text = form === "base64" ? undefined : textOf(bytes);
  return text === undefined ? { payload: base64Of(bytes), encoding: "base64" } : { payload: text, encoding: "utf8" };
}
