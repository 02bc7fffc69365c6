/** Log of a long-running command: lines of JSON that never block the work, with the fields of pino. */
import { close, write, writeSync } from "node:fs";
import { hostname } from "node:os";
import { inspect, promisify } from "node:util";
import { delay, type LogDetails, type Logger, openPrivate, within } from "../../foundation/runtime/index.js";
import { jsonText } from "./output.js";

/** Levels of lines by severity, and `silent`, which logs nothing. */
export const logLevels = ["debug", "info", "warn", "error", "silent"] as const;
type LogLevel = (typeof logLevels)[number];

/** Numbers of the levels in a line. */
const levelNumbers: Readonly<Record<LogLevel, number>> = { debug: 20, info: 30, warn: 40, error: 50, silent: 60 };

/** Amount of log output that waits for the reader of standard error; further lines are dropped and counted. */
export const maxLogBufferBytes = 1024 * 1024;

/** Pause before a write to a full pipe is tried again. */
const retryMs = 50;
/** Maximum wait of {@link LogOutput.close} for the reader of the last lines. */
const closeMs = 1000;
/** Maximum wait of {@link LogOutput.closeNow} for the reader of the last lines. */
const closeNowMs = 200;

const writeSome = promisify(write);

/**
 * Writer of the log to standard error or to a file. A reader that is too slow loses lines, and a log line reports their
 * number.
 */
export class LogOutput {
  readonly logger: Logger = {
    debug: (details, message) => this.#log("debug", details, message),
    info: (details, message) => this.#log("info", details, message),
    warn: (details, message) => this.#log("warn", details, message),
    error: (details, message) => this.#log("error", details, message),
  };
  readonly #file: number;
  #least: LogLevel;
  /** Lines that no write has begun with. */
  readonly #lines: string[] = [];
  /** Bytes of all lines that are not written yet. */
  #waitingBytes = 0;
  #writing: Promise<void> | undefined;
  #dropped = 0;
  /** Time until which writes are retried while the reader does not read (`performance.now()`, ms). */
  #waitsUntil = Number.POSITIVE_INFINITY;

  /**
   * @param level least severe level that is logged
   * @param file is appended to, and created if missing; other users cannot read it. Default: standard error
   * @throws the system's error if the file cannot be opened
   */
  constructor(level: LogLevel, file?: string) {
    this.#least = level;
    // Reading the property makes the pipe non-blocking; otherwise a reader that hangs would block a thread.
    if (file === undefined) void process.stderr.fd;
    this.#file = file === undefined ? 2 : openPrivate(file);
  }

  /**
   * Resolves when the last lines have been written, or after a second if their reader is too slow. Later lines are not logged.
   */
  async close(): Promise<void> {
    this.#end(closeMs);
    await within(closeMs, this.#writing ?? Promise.resolve());
    if (this.#file !== 2) close(this.#file, () => undefined);
  }

  /** Closes the log without a turn of the event loop, for a process that is about to end. */
  closeNow(): void {
    this.#end(closeNowMs);
    let left = Buffer.from(this.#lines.splice(0).join(""));
    while (left.length > 0 && performance.now() < this.#waitsUntil) {
      try {
        left = left.subarray(writeSync(this.#file, left));
      } catch (error) {
        // The output cannot be written: its reader has ended, or the disk is full.
        if (!isFull(error)) return;
      }
    }
  }

  #end(waitMs: number): void {
    this.#reportDropped();
    this.#least = "silent";
    this.#waitsUntil = performance.now() + waitMs;
  }

  #log(level: Exclude<LogLevel, "silent">, details: LogDetails, message: string): void {
    if (levelNumbers[level] < levelNumbers[this.#least]) return;
    const line = lineOf(levelNumbers[level], details, message);
    const bytes = Buffer.byteLength(line);
    if (this.#waitingBytes + bytes > maxLogBufferBytes) {
      this.#dropped += 1;
      return;
    }
    this.#lines.push(line);
    this.#waitingBytes += bytes;
    this.#writing ??= this.#writeAll();
  }

  async #writeAll(): Promise<void> {
    while (this.#lines.length > 0) {
      let left = Buffer.from(this.#lines.splice(0).join(""));
      while (left.length > 0) {
        const written = await this.#write(left);
        this.#waitingBytes -= written;
        left = left.subarray(written);
      }
      if (this.#lines.length === 0) this.#reportDropped();
    }
    this.#writing = undefined;
  }

  /** Writes a part, and returns its length. A log that cannot be written must not end the command: then it is skipped. */
  async #write(part: Buffer): Promise<number> {
    try {
      return (await writeSome(this.#file, part)).bytesWritten;
    } catch (error) {
      if (!isFull(error) || performance.now() > this.#waitsUntil) return part.length;
      await delay(retryMs);
      return 0;
    }
  }

  #reportDropped(): void {
    const dropped = this.#dropped;
    if (dropped === 0) return;
    this.#dropped = 0;
    this.logger.warn({ dropped }, "log lines were lost, because the reader was too slow");
  }
}

/** True if the pipe has no room, because its reader is slow. */
function isFull(error: unknown): boolean {
  return (error as NodeJS.ErrnoException).code === "EAGAIN";
}

function lineOf(level: number, details: LogDetails, msg: string): string {
  const fields = { level, time: Date.now(), pid: process.pid, hostname: hostname(), name: "hawser" };
  try {
    return `${jsonText({ ...fields, ...details, msg }, plain)}\n`;
  } catch {
    // The details have a circle.
    return `${jsonText({ ...fields, details: inspect(details), msg })}\n`;
  }
}

/** Value for JSON, which has neither errors nor bigints. */
function plain(_: string, value: unknown): unknown {
  if (typeof value === "bigint") return Number.isSafeInteger(Number(value)) ? Number(value) : String(value);
  if (!(value instanceof Error)) return value;
  const { cause: _cause, ...properties } = value as Error & Record<string, unknown>;
  const all = [...withCauses(value)];
  return {
    ...properties,
    type: value.constructor.name,
    message: all.map(({ message }) => message).join(": "),
    stack: all.map(({ stack }) => stack).join("\ncaused by: "),
    ...("errors" in value && { aggregateErrors: value.errors }),
  };
}

/** The error, its cause, the cause of that, and so on. */
function* withCauses(error: Error): Generator<Error> {
  const seen = new Set<unknown>();
  for (let each: unknown = error; each instanceof Error && !seen.has(each); each = each.cause) {
    seen.add(each);
    yield each;
  }
}
