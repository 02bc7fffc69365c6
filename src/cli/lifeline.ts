/**
 * Noticing that whoever started this command is gone, so that `hawser dev` leaves no servers behind a killed script.
 *
 * Three signs: the pipe on standard input closes; the terminal hangs up (SIGHUP, handled by the caller); the parent
 * process is replaced by another one, which means that it died. The last is watched when standard input is a pipe or a
 * terminal, or when npm runs us; npm may have put a shell between, which outlives it. A command started with
 * `</dev/null` (as a shell does with `&` in a script) is meant to stay when the script ends, and stays.
 */
import { fstatSync, readFileSync } from "node:fs";
import { isatty } from "node:tty";

/** How often the parent is looked at. */
const PARENT_CHECK_MS = 250;

/** The connection to whoever started us. */
export interface Lifeline {
  /** Aborted when they are gone; the reason tells the sign. */
  readonly signal: AbortSignal;
  /** From now on the end of standard input counts. One that is closed from the beginning was never a sign of life. */
  trustStandardInput(): void;
  /** Stops watching. */
  close(): void;
}

/** Begins watching. */
export function holdLifeline(): Lifeline {
  const gone = new AbortController();
  const piped = isPipe(0);
  let trusted = false;
  let timer: NodeJS.Timeout | undefined;

  const onEnd = () => {
    if (trusted) gone.abort("standard input was closed");
  };
  if (piped) process.stdin.on("end", onEnd).on("error", onEnd).resume();

  const byNpm = process.env["npm_lifecycle_event"] !== undefined;
  if (piped || isatty(0) || byNpm) {
    const starters = () => (byNpm ? [process.ppid, parentOf(process.ppid)] : [process.ppid]).join();
    const before = starters();
    timer = setInterval(() => {
      if (starters() !== before) gone.abort("the process that started this one has ended");
    }, PARENT_CHECK_MS).unref();
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
