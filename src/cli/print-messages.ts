/**
 * From a peer's messages to lines, at the pace of whoever reads them.
 */
import type { Message, Peer } from "../peer/index.js";
import { jsonLine, type PayloadForm, plainLine } from "./message-line.js";
import type { Output } from "./output.js";
import { startProgress } from "./progress.js";
import { plural } from "./table.js";

/** How long a line that is being written when the command is to end may take, in milliseconds. */
const lastLineMs = 1_000;

/** How to print, and until when. */
export interface PrintOptions {
  readonly json: boolean;
  readonly form: PayloadForm;
  /** Ends after so many. */
  readonly limit: number | undefined;
  readonly output: Output;
  /** Ends it. */
  readonly stop: AbortSignal;
  readonly progress: boolean;
}

/**
 * Prints until the messages end, the limit is reached, or the reader leaves. A message is finished when its line is
 * written; one whose line is not is given back.
 *
 * @returns how many were printed
 * @throws CliError `output_failed`
 */
export async function printMessages(
  messages: AsyncIterableIterator<Message>,
  peer: Peer,
  { json, form, limit, output, stop, progress }: PrintOptions,
): Promise<number> {
  const line = json ? jsonLine : plainLine;
  const shown = await startProgress("Waiting for messages", progress);
  let printed = 0;
  // Set while a line is being written.
  let giveUp: (() => void) | undefined;
  let timer: NodeJS.Timeout | undefined;
  const onStop = (): void => {
    timer = setTimeout(() => giveUp?.(), lastLineMs);
  };
  stop.addEventListener("abort", onStop);
  try {
    for (;;) {
      // Asking for the next one finishes the one before.
      const { done, value } = await messages.next();
      if (done) return printed;
      const isWritten = await new Promise<boolean>((resolve, reject) => {
        giveUp = () => resolve(false);
        output.write(line(value, form)).then(resolve, reject);
      });
      if (!isWritten) return printed;
      printed += 1;
      shown.update(plural(printed, "message"));
      if (printed === limit) {
        const stopped = peer.stop();
        await messages.next();
        await stopped;
        return printed;
      }
    }
  } finally {
    clearTimeout(timer);
    stop.removeEventListener("abort", onStop);
    await messages.return?.();
    shown.stop();
  }
}
