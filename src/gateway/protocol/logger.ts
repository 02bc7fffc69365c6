/**
 * Where the gateway reports what no caller is told: the part of pino's interface that it uses.
 */
export interface Logger {
  debug(details: object, message: string): void;
  info(details: object, message: string): void;
  warn(details: object, message: string): void;
  error(details: object, message: string): void;
}
