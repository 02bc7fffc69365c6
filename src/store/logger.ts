/**
 * Where the store reports what no caller is told: the part of pino's interface that it uses.
 */
export interface Logger {
  debug(details: object, message: string): void;
  info(details: object, message: string): void;
  warn(details: object, message: string): void;
  error(details: object, message: string): void;
}

const ignore = (): void => {};

/** Says nothing. The default, because a library does not write on its user's terminal. */
export const silentLogger: Logger = { debug: ignore, info: ignore, warn: ignore, error: ignore };
