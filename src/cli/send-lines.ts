/**
 * `hawser send --lines`: standard input as a stream of messages, read no faster than they are confirmed.
 */
import { peerSettingsDefaults, protocolConstants } from "../../generated/ts/settings/peer.js";
import { CliError, HawserError } from "../errors/index.js";
import { byteLines } from "./byte-lines.js";
import { print } from "./output.js";
import { startProgress } from "./progress.js";
import { decodeBase64, type Outcome } from "./send-one.js";
import { SendWindow } from "./send-window.js";
import { plural } from "./table.js";

/**
 * Well below what the queue for a listener takes: `busy` is for those who share it, and a message that was refused and
 * sent again would have lost its place.
 */
const windowLimits = {
  messages: peerSettingsDefaults.maxSendQueueMessages / 4,
  bytes: peerSettingsDefaults.maxSendQueueBytes / 4,
};

/** How to send, and how to tell of it. */
export interface SendLinesOptions {
  readonly input: NodeJS.ReadStream;
  readonly sendTo: (payload: Uint8Array) => Promise<readonly Outcome[]>;
  /** Resolves when the receipts are written. */
  readonly tell: (outcomes: readonly Outcome[], line: number) => Promise<void>;
  readonly base64: boolean;
  readonly quiet: boolean;
  readonly json: boolean;
  /** Ends the reading. */
  readonly signal: AbortSignal;
}

/**
 * Sends each line that is not empty, and resolves when all are confirmed.
 *
 * @throws HawserError of the first line that failed: nothing behind it is read any more, and what is under way is waited
 * for; `aborted` by the signal
 */
export async function sendLines(options: SendLinesOptions): Promise<void> {
  const { input, sendTo, tell, quiet, json, signal } = options;
  const window = new SendWindow(windowLimits);
  const counts = new Map<string, number>();
  const progress = await startProgress("Sending", !quiet && !input.isTTY);
  let failure: { readonly line: number; readonly error: unknown } | undefined;
  let line = 0;
  let confirmed = 0;
  const fail = (at: number, error: unknown): void => {
    if (failure === undefined || at < failure.line) failure = { line: at, error };
  };
  const dispatch = async (payload: Uint8Array, at: number): Promise<void> => {
    try {
      const outcomes = await sendTo(payload);
      for (const outcome of outcomes) {
        if ("error" in outcome) fail(at, outcome.error);
        else counts.set(outcome.outcome, (counts.get(outcome.outcome) ?? 0) + 1);
      }
      confirmed += 1;
      progress.update(`${plural(confirmed, "message")} confirmed, ${window.inFlight - 1} under way`);
      await tell(outcomes, at);
    } catch (error) {
      fail(at, error);
    } finally {
      window.leave(payload.length);
    }
  };
  const endReading = (): void => void input.destroy();
  signal.addEventListener("abort", endReading);
  try {
    for await (const bytes of byteLines(input, protocolConstants.maxStoredMessageBytes)) {
      line += 1;
      if (failure !== undefined || signal.aborted) break;
      if (bytes.length === 0) continue;
      const payload = options.base64 ? decodeBase64(Buffer.from(bytes).toString("latin1"), `line ${line}`) : bytes;
      await window.enter(payload.length);
      if (failure !== undefined || signal.aborted) break;
      void dispatch(payload, line);
    }
  } catch (error) {
    if (!signal.aborted) fail(line + 1, readError(error));
  } finally {
    signal.removeEventListener("abort", endReading);
    await window.empty();
    progress.stop();
  }
  const summary = summaryOf(counts, confirmed);
  if (!quiet && !json) print(process.stdout, summary);
  if (failure !== undefined) throw failedAt(failure, summary);
  if (signal.aborted) throw new CliError("aborted", `stopped by a signal while reading. ${summary}`);
}

function summaryOf(counts: ReadonlyMap<string, number>, confirmed: number): string {
  const parts = [...counts].map(([outcome, count]) => `${count} ${outcome}`);
  return `${plural(confirmed, "message")}${parts.length > 0 ? `: ${parts.join(", ")}` : ""}`;
}

function failedAt({ line, error }: { readonly line: number; readonly error: unknown }, summary: string): unknown {
  if (!HawserError.is(error)) return error;
  const { outcome } = error;
  return new CliError(error.code, `line ${line}: ${error.message}. Before and beside it: ${summary}`, {
    cause: error.cause,
    ...(outcome !== undefined && { outcome }),
  });
}

/** What a stream of Node throws. */
function readError(error: unknown): unknown {
  if (HawserError.is(error)) return error;
  return new CliError("output_failed", `could not read standard input: ${(error as Error).message}`, { cause: error });
}
