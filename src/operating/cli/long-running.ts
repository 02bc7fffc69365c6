/** Support for commands that run until they are stopped: stop requests, and a graceful end after a defect. */
import { fstatSync, readFileSync } from "node:fs";
import { isatty } from "node:tty";
import { errorTable, HawserError } from "../../foundation/errors/index.js";
import { hurryAfterMs, stopSignals } from "../../foundation/runtime/index.js";
import type { LogOutput } from "./log-output.js";

/** Request to stop the command: a signal, or the end of the parent process. */
export interface StopRequest {
  /** Aborted by the first request. */
  readonly signal: AbortSignal;
  /** Aborted by a further signal. */
  readonly hurry: AbortSignal;
  /** Must be called when the command is ready: see {@link ParentWatch.trustStandardInput}. */
  started(): void;
  /** Stops listening; signals have their default effect again. */
  close(): void;
}

/** Watch of commands that do not end with their parent process: only signals stop them. */
const noWatch: ParentWatch = { signal: new AbortController().signal, trustStandardInput() {}, close() {} };

/**
 * Starts to listen for stop requests.
 *
 * @param options.parent true if the end of standard input, or of the parent process, is a stop request too
 * @param options.standardInput false if a child process reads standard input. Default true
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
        // Everything has been stopped: a signal during the exit must not change the exit status.
        if (first !== undefined) process.on(name, () => process.exit());
      }
      parent.close();
    },
  };
}

/** Runs a command until it ends or is told to stop. A late second signal ends the process at once, with status 130. */
export async function untilStopped(run: (request: StopRequest) => Promise<void>): Promise<void> {
  const request = awaitStopRequest({ parent: false });
  request.hurry.addEventListener("abort", () => process.exit(130));
  try {
    await run(request);
  } finally {
    request.close();
  }
}

/** Interval at which the parent process is checked. */
const parentCheckMs = 250;

/** Detects the end of the process that started this command. */
interface ParentWatch {
  /** Aborted when the parent has ended; the reason names the sign. */
  readonly signal: AbortSignal;
  /**
   * Treats the end of standard input as a stop request from now on. An input that was closed from the beginning does
   * not count.
   */
  trustStandardInput(): void;
  close(): void;
}

/**
 * Starts to watch the parent process, so that `hawser dev` leaves no servers behind when its script is killed.
 *
 * Three signs show the end of the parent: the pipe on standard input closes; the terminal hangs up (SIGHUP, handled by
 * the caller); the parent process id changes. The id is watched if standard input is a pipe or a terminal, or if npm
 * runs this command. For npm the parent's parent is watched too, because npm may have started a shell that outlives
 * npm. A command started with `</dev/null` (as a shell does with `&` in a script) is meant to outlive the script, and
 * does.
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

/** Parent of another process, if the system can tell cheaply; otherwise always the same value. */
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
    // Standard input is closed.
    return false;
  }
}

/** Time limit of the graceful end after a defect. */
const defectStopMs = 2000;

/** Handler of uncaught errors, which are defects of Hawser: logs them, and ends the command gracefully if possible. */
interface DefectHandler {
  /** Aborted by the first defect, with the error that the command ends with. */
  readonly signal: AbortSignal;
  /**
   * Removes the handler at the end of the command, except after a defect, so that Node.js does not print later errors.
   */
  close(): void;
}

/** Installs the handler. If the command has not ended soon after a defect, the process is ended. */
export function catchDefects(log: LogOutput): DefectHandler {
  const found = new AbortController();
  let late: NodeJS.Timeout | undefined;
  const onDefect = (err: unknown, origin: string): void => {
    log.logger.error({ err, origin }, "uncaught error, a defect of Hawser; please report it");
    if (found.signal.aborted) return;
    const message = "uncaught error, a defect of Hawser; please report it with the logged lines";
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
      // The unreferenced timer still ends the process if other resources of the command keep it alive.
      late?.unref();
      if (found.signal.aborted) return;
      process.off("uncaughtException", onDefect);
      process.off("unhandledRejection", onRejection);
    },
  };
}
