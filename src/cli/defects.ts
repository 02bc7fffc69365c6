/**
 * What nobody caught: a defect of Hawser. It is logged, and the command ends in order, as far as it still can.
 */
import { CliError, errorTable } from "../errors/index.js";
import type { LogOutput } from "./log-output.js";

/** How long the end in order may take after a defect. */
const STOP_MS = 2000;

/** The net under a command that runs on and on. */
export interface DefectNet {
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
    found.abort(new CliError("internal", message, { cause: err }));
    const { exitStatus } = errorTable.internal;
    late = setTimeout(() => {
      log.closeNow();
      process.exit(exitStatus);
    }, STOP_MS);
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
