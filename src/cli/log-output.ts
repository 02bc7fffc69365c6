/**
 * The log of a command that runs on and on: lines of JSON on standard error, or in a file, which never hold up the work. Who
 * reads too slowly loses lines, and is told how many.
 */
import { openSync } from "node:fs";
import { type DestinationStream, type Logger, pino } from "pino";
import { gatewayConstants } from "../../generated/ts/settings/nats.js";
import { isGone } from "./output.js";

/** How long the end waits for whoever reads the last lines. */
const CLOSE_MS = 1000;
/** The same where the process ends at once. */
const CLOSE_NOW_MS = 200;

/** See above. */
export class LogOutput {
  readonly logger: Logger;
  readonly #destination: ReturnType<typeof pino.destination>;
  #dropped = 0;
  #isGone = false;
  /** Until when a reader that does not read is waited for, by `performance.now()`. */
  #patienceEnds = Number.POSITIVE_INFINITY;

  /**
   * @param level the least that is logged
   * @param file is appended to, and made where it is missing. Default: standard error
   * @throws the system's error if the file cannot be opened
   */
  constructor(level: string, file?: string) {
    // Whoever touches it makes the pipe one that is not waited for; else a reader that hangs would hold a thread.
    if (file === undefined) void process.stderr.fd;
    const destination = pino.destination({
      ...(file === undefined ? { fd: 2 } : { fd: openSync(file, "a", 0o644) }),
      sync: false,
      maxLength: gatewayConstants.maxLogBufferBytes,
      retryEAGAIN: () => performance.now() < this.#patienceEnds,
    });
    this.#destination = destination;
    this.logger = pino({ name: "hawser", level }, destination as DestinationStream);
    destination.on("drop", () => {
      this.#dropped += 1;
    });
    destination.on("drain", () => this.#tellDropped());
    // A log that cannot be written is no reason to end.
    destination.on("error", (error: NodeJS.ErrnoException) => {
      this.#isGone ||= isGone(error);
    });
  }

  /** Resolves when the last lines have been written, or nobody has read them for a second. Logs nothing any more. */
  async close(): Promise<void> {
    this.#tellDropped();
    this.logger.level = "silent";
    this.#patienceEnds = performance.now() + CLOSE_MS;
    if (this.#isGone) return;
    const destination = this.#destination;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, CLOSE_MS);
      const end = () => {
        clearTimeout(timer);
        resolve();
      };
      destination.once("close", end);
      destination.once("error", end);
      destination.end();
    });
    destination.destroy();
  }

  /** The same without a turn of the event loop, for a process that is about to end. */
  closeNow(): void {
    this.#tellDropped();
    this.logger.level = "silent";
    this.#patienceEnds = performance.now() + CLOSE_NOW_MS;
    try {
      this.#destination.flushSync();
    } catch {
      // Nobody reads.
    }
    this.#destination.destroy();
  }

  #tellDropped(): void {
    const dropped = this.#dropped;
    if (dropped === 0) return;
    this.#dropped = 0;
    this.logger.warn({ dropped }, "lines of the log are lost: they were not taken fast enough");
  }
}
