/**
 * What commands need that run until they are told to stop: the request to stop, a log that never holds up the work, and an
 * orderly end after a defect.
 */
import { once } from "node:events";
import { fstatSync, readFileSync } from "node:fs";
import { isatty } from "node:tty";
import { type DestinationStream, type Logger, pino } from "pino";
import { gatewayConstants } from "../../generated/ts/settings/nats.js";
import { errorTable, HawserError } from "../errors/index.js";
import { openPrivate } from "../files/index.js";
import { hurryAfterMs, stopSignals, within } from "../runtime/index.js";
import { isGone } from "./output.js";

/** The request to stop, as it comes. */
export interface StopRequest {
  /** Aborted by the first request. */
  readonly signal: AbortSignal;
  /** Aborted by a further signal. */
  readonly hurry: AbortSignal;
  /** Call it when the command is up: see {@link ParentWatch.trustStandardInput}. */
  started(): void;
  /** Stops listening; signals do again what they do by default. */
  close(): void;
}

/** For commands that leave standard input alone, or read it themselves: only signals count. */
const noWatch: ParentWatch = { signal: new AbortController().signal, trustStandardInput() {}, close() {} };

/**
 * Begins to listen.
 *
 * @param options.parent whether the end of standard input, or of the process that started this one, is a request, too
 * @param options.standardInput whether this process may read standard input; false where a program that it starts does. Default true
 */
export function awaitStopRequest(
  options: { readonly parent: boolean; readonly standardInput?: boolean } = { parent: true },
): StopRequest {
  const parent = options.parent ? watchParent(options.standardInput ?? true) : noWatch;
  const signalled = new AbortController();
  const hurried = new AbortController();
  let first: number | undefined;
  const onSignal = (name: NodeJS.Signals) => {
    if (first === undefined) {
      first = performance.now();
      signalled.abort(name);
    } else if (performance.now() - first > hurryAfterMs) hurried.abort(name);
  };
  for (const name of stopSignals) process.on(name, onSignal);
  return {
    signal: AbortSignal.any([signalled.signal, parent.signal]),
    hurry: hurried.signal,
    started: () => parent.trustStandardInput(),
    close: () => {
      for (const name of stopSignals) {
        process.off(name, onSignal);
        // All has been stopped: a signal that comes on the way out is no reason to end as if by it.
        if (first !== undefined) process.on(name, () => process.exit());
      }
      parent.close();
    },
  };
}

/** How often the parent is checked. */
const parentCheckMs = 250;

/** Notices that the process which started this command is gone. */
interface ParentWatch {
  /** Aborted when it is gone; the reason tells the sign. */
  readonly signal: AbortSignal;
  /** From now on the end of standard input counts. One that is closed from the beginning was never a sign of life. */
  trustStandardInput(): void;
  /** Stops watching. */
  close(): void;
}

/**
 * Begins to watch the parent process, so that `hawser dev` leaves no servers behind a killed script.
 *
 * Three signs: the pipe on standard input closes; the terminal hangs up (SIGHUP, handled by the caller); the parent
 * process is replaced by another one, which means that it died. The last is watched when standard input is a pipe or a
 * terminal, or when npm runs this command; npm may have put a shell between, which outlives it. A command started with
 * `</dev/null` (as a shell does with `&` in a script) is meant to stay when the script ends, and stays.
 */
function watchParent(readsInput: boolean): ParentWatch {
  const gone = new AbortController();
  const hasPipe = isPipe(0);
  const piped = hasPipe && readsInput;
  let trusted = false;
  let timer: NodeJS.Timeout | undefined;

  const onEnd = () => {
    if (trusted) gone.abort("standard input was closed");
  };
  if (piped) process.stdin.on("end", onEnd).on("error", onEnd).resume();

  const byNpm = process.env["npm_lifecycle_event"] !== undefined;
  if (hasPipe || isatty(0) || byNpm) {
    const starters = () => (byNpm ? [process.ppid, parentOf(process.ppid)] : [process.ppid]).join();
    const before = starters();
    timer = setInterval(() => {
      if (starters() !== before) gone.abort("the process that started this one has ended");
    }, parentCheckMs).unref();
  }

  return {
    signal: gone.signal,
    trustStandardInput: () => (trusted = true),
    close: () => {
      clearInterval(timer);
      if (piped) process.stdin.off("end", onEnd).off("error", onEnd).destroy();
    },
  };
}

/** The parent of another process, where the system tells it for little; else always the same. */
function parentOf(pid: number): number {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    return Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1]);
  } catch {
    return 0;
  }
}

function isPipe(descriptor: number): boolean {
  try {
    const stat = fstatSync(descriptor);
    return stat.isFIFO() || stat.isSocket();
  } catch {
    // Closed.
    return false;
  }
}

/** How long the end waits for the reader of the last lines. */
const closeMs = 1000;
/** The same where the process ends at once. */
const closeNowMs = 200;

/**
 * The log of a command that runs on and on: lines of JSON on standard error, or in a file, which never hold up the work. A
 * reader that is too slow loses lines, and is told how many.
 */
export class LogOutput {
  readonly logger: Logger;
  readonly #destination: ReturnType<typeof pino.destination>;
  #dropped = 0;
  #isGone = false;
  /** Until when a reader that does not read is waited for, by `performance.now()`. */
  #waitsUntil = Number.POSITIVE_INFINITY;

  /**
   * @param level the least that is logged
   * @param file is appended to, and made where it is missing; others cannot read it. Default: standard error
   * @throws the system's error if the file cannot be opened
   */
  constructor(level: string, file?: string) {
    // Touching it makes the pipe one that is not waited for; else a reader that hangs would hold a thread.
    if (file === undefined) void process.stderr.fd;
    const destination = pino.destination({
      ...(file === undefined ? { fd: 2 } : { fd: openPrivate(file) }),
      sync: false,
      maxLength: gatewayConstants.maxLogBufferBytes,
      retryEAGAIN: () => performance.now() < this.#waitsUntil,
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
    this.#waitsUntil = performance.now() + closeMs;
    if (this.#isGone) return;
    const destination = this.#destination;
    const closed = once(destination, "close").catch(() => undefined);
    destination.end();
    await within(closeMs, closed);
    destination.destroy();
  }

  /** The same without a turn of the event loop, for a process that is about to end. */
  closeNow(): void {
    this.#tellDropped();
    this.logger.level = "silent";
    this.#waitsUntil = performance.now() + closeNowMs;
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

/** How long the end in order may take after a defect. */
const defectStopMs = 2000;

/** Catches what no one else does, a defect of Hawser: logs it, and ends the command in order, as far as it still can. */
interface DefectNet {
  /** Aborted by the first defect, with the error that the command ends with. */
  readonly signal: AbortSignal;
  /** The command has ended. Takes the net away, unless there was a defect: Node.js is not to print what comes after it. */
  close(): void;
}

/** Puts it up. Should the command not have ended soon after a defect, the process ends. */
export function catchDefects(log: LogOutput): DefectNet {
  const found = new AbortController();
  let late: NodeJS.Timeout | undefined;
  const onDefect = (err: unknown, origin: string): void => {
    log.logger.error({ err, origin }, "a defect of Hawser: an error that nobody caught; please report it");
    if (found.signal.aborted) return;
    const message = "an error that nobody caught: this is a defect of Hawser; please report it with what was logged";
    found.abort(new HawserError("internal", message, { cause: err }));
    const { exitStatus } = errorTable.internal;
    late = setTimeout(() => {
      log.closeNow();
      process.exit(exitStatus);
    }, defectStopMs);
  };
  const onRejection = (reason: unknown): void => onDefect(reason, "unhandledRejection");
  process.on("uncaughtException", onDefect);
  process.on("unhandledRejection", onRejection);
  return {
    signal: found.signal,
    close: () => {
      // Whatever may be left over of the command is not waited for longer than that.
      late?.unref();
      if (found.signal.aborted) return;
      process.off("uncaughtException", onDefect);
      process.off("unhandledRejection", onRejection);
    },
  };
}
