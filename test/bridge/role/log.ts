/**
 * A logger that keeps what is logged.
 */
import type { Logger } from "../../../src/foundation/runtime/index.js";

/** Logged lines, one entry per line. */
export interface KeptLog {
  readonly logger: Logger;
  readonly lines: { readonly level: string; readonly details: object; readonly message: string }[];
  /** The messages of one level, in their order. */
  messages(level: "debug" | "info" | "warn" | "error"): string[];
}

export function keptLog(): KeptLog {
  const lines: KeptLog["lines"] = [];
  const log = (level: string) => (details: object, message: string) => {
    lines.push({ level, details, message });
  };
  return {
    logger: { debug: log("debug"), info: log("info"), warn: log("warn"), error: log("error") },
    lines,
    messages: (level) => lines.filter((line) => line.level === level).map(({ message }) => message),
  };
}
