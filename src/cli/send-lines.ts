/**
 * Messages of `hawser send`: one message, or with `--lines` standard input as a stream of messages, which is read no
 * faster than they are confirmed.
 */
import { protocolConstants, tuningSettingsDefaults } from "../../generated/ts/settings/peer.js";
import { HawserError, plural } from "../errors/index.js";
import type { Peer, Receipt, SendOptions } from "../peer/index.js";
import { Semaphore } from "../runtime/index.js";
import { jsonText, print, printable, startProgress } from "./output.js";

/**
 * Limits of unconfirmed messages, well below those of a listener's queue: other sends share the queue, and a message
 * that was refused as `busy` and sent again would lose its place.
 */
const windowLimits = {
  messages: tuningSettingsDefaults.maxSendQueueMessages / 4,
  bytes: tuningSettingsDefaults.maxSendQueueBytes / 4,
};

/** Input, sending and reporting of {@link sendLines}. */
export interface SendLinesOptions {
  readonly input: NodeJS.ReadStream;
  readonly sendTo: (payload: Uint8Array) => Promise<readonly Outcome[]>;
  /** Reports the receipts; resolves when they are written. */
  readonly report: (outcomes: readonly Outcome[], line: number) => Promise<void>;
  readonly base64: boolean;
  readonly quiet: boolean;
  readonly json: boolean;
  /** Aborts the reading. */
  readonly signal: AbortSignal;
}

/**
 * Sends each line that is not empty, and resolves when all are confirmed.
 *
 * @throws HawserError of the first line that failed: later lines are not read, and pending messages are awaited;
 * `aborted` by the signal
 */
export async function sendLines(options: SendLinesOptions): Promise<void> {
  const { input, sendTo, report, quiet, json, signal } = options;
  const window = { messages: new Semaphore(windowLimits.messages), bytes: new Semaphore(windowLimits.bytes) };
  let underWay = 0;
  const counts = new Map<string, number>();
  const progress = startProgress("Sending", !quiet && !input.isTTY);
  let failure: { readonly line: number; readonly error: unknown } | undefined;
  let line = 0;
  let confirmed = 0;
  const fail = (at: number, error: unknown): void => {
    if (failure === undefined || at < failure.line) failure = { line: at, error };
  };
  const dispatch = async (payload: Uint8Array, at: number, bytes: number): Promise<void> => {
    underWay += 1;
    try {
      const outcomes = await sendTo(payload);
      for (const outcome of outcomes) {
        if ("error" in outcome) fail(at, outcome.error);
        else counts.set(outcome.outcome, (counts.get(outcome.outcome) ?? 0) + 1);
      }
      confirmed += 1;
      progress.update(`${plural(confirmed, "message")} confirmed, ${underWay - 1} under way`);
      await report(outcomes, at);
    } catch (error) {
      fail(at, error);
    } finally {
      underWay -= 1;
      window.messages.release();
      window.bytes.release(bytes);
    }
  };
  const endReading = (): void => void input.destroy();
  signal.addEventListener("abort", endReading);
  if (signal.aborted) endReading();
  try {
    for await (const text of byteLines(input, protocolConstants.maxStoredMessageBytes)) {
      line += 1;
      if (failure !== undefined || signal.aborted) break;
      if (text.length === 0) continue;
      const payload = options.base64 ? decodeBase64(Buffer.from(text).toString("latin1"), `line ${line}`) : text;
      // A message always fits, however large it is.
      const bytes = Math.min(payload.length, window.bytes.limit);
      await window.messages.acquire();
      await window.bytes.acquire(bytes);
      void dispatch(payload, line, bytes);
    }
  } catch (error) {
    if (!signal.aborted) fail(line + 1, readError(error));
  } finally {
    signal.removeEventListener("abort", endReading);
    await window.messages.acquire(window.messages.limit);
    progress.stop();
  }
  const summary = summaryOf(counts, confirmed);
  if (!quiet && !json) print(process.stdout, summary);
  if (failure !== undefined) throw failedAt(failure, summary);
  if (signal.aborted) throw new HawserError("aborted", `stopped by a signal while reading. ${summary}`);
}

function summaryOf(counts: ReadonlyMap<string, number>, confirmed: number): string {
  const parts = [...counts].map(([outcome, count]) => `${count} ${outcome}`);
  return `${plural(confirmed, "message")}${parts.length > 0 ? `: ${parts.join(", ")}` : ""}`;
}

function failedAt({ line, error }: { readonly line: number; readonly error: unknown }, summary: string): unknown {
  if (!(error instanceof HawserError)) return error;
  const { outcome } = error;
  return new HawserError(error.code, `line ${line}: ${error.message}. Other messages: ${summary}`, {
    cause: error.cause,
    ...(outcome !== undefined && { outcome }),
  });
}

/** Converts an error of a Node.js stream. */
function readError(error: unknown): unknown {
  if (error instanceof HawserError) return error;
  return new HawserError("output_failed", `could not read standard input: ${(error as Error).message}`, {
    cause: error,
  });
}

const lineFeed = 0x0a;

/**
 * Splits at line feeds, which are not part of the lines, without other changes. Bytes after the last line feed are a
 * line too, unless empty.
 *
 * @throws HawserError `invalid_argument` for a line of more than `maxBytes`, so that no more is kept in memory
 */
export async function* byteLines(chunks: AsyncIterable<Uint8Array>, maxBytes: number): AsyncGenerator<Uint8Array> {
  let parts: Uint8Array[] = [];
  let bytes = 0;
  let number = 1;
  const take = (part: Uint8Array): void => {
    bytes += part.length;
    if (bytes > maxBytes) {
      throw new HawserError(
        "invalid_argument",
        `line ${number} is longer than ${maxBytes} bytes, the limit of a message`,
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

/** Concatenates a stream. @throws HawserError `invalid_argument` if it has more than `maxBytes` */
export async function allBytes(chunks: AsyncIterable<Uint8Array>, maxBytes: number): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of chunks) {
    bytes += chunk.length;
    if (bytes > maxBytes) {
      throw new HawserError(
        "invalid_argument",
        `standard input has more than ${maxBytes} bytes, the limit of a message; --lines sends each line as a message`,
      );
    }
    parts.push(chunk);
  }
  return Buffer.concat(parts);
}

/** Outcome of a send to one listener. */
export type Outcome =
  | Receipt<"delivered" | "stored" | "sent" | "dropped">
  | { readonly peer: string; readonly error: HawserError };

/** Sends to one listener of the topic, or to all. @throws HawserError as {@link Peer.send} */
export async function sendOne(
  peer: Peer,
  topic: string,
  payload: Uint8Array,
  options: SendOptions,
  toAll: boolean,
): Promise<readonly Outcome[]> {
  return toAll ? await peer.sendAll(topic, payload, options) : [await peer.send(topic, payload, options)];
}

const prepositions = { delivered: "to", stored: "for", sent: "to", dropped: "for" } as const;

/** Outcome as a line, with its line end. */
export function lineOf(
  outcome: Outcome,
  { json, line }: { readonly json: boolean; readonly line?: number | undefined },
): string {
  const { peer } = outcome;
  if (json) {
    const result =
      "error" in outcome
        ? { outcome: "failed", peer, error: { code: outcome.error.code, message: outcome.error.message } }
        : { outcome: outcome.outcome, peer };
    return `${jsonText(line === undefined ? result : { line, ...result })}\n`;
  }
  if ("error" in outcome) return `failed for ${printable(peer)}: ${printable(outcome.error.message)}\n`;
  return `${outcome.outcome} ${prepositions[outcome.outcome]} ${printable(peer)}\n`;
}

/** Decodes base64, ignoring white space. @throws HawserError `invalid_argument` */
export function decodeBase64(text: string, what = "the message"): Uint8Array {
  const dense = text.replace(/\s/g, "");
  if (!/^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/.test(dense)) {
    throw new HawserError("invalid_argument", `${what} is not base64, although --base64 says so`);
  }
  return Buffer.from(dense, "base64");
}
