/**
 * What commands write: lines for people with {@link print}, and with {@link Output} as they go, at the pace of the
 * reader and until the reader leaves.
 */
import type { Writable } from "node:stream";
import { stripVTControlCharacters } from "node:util";
import { CliError } from "../errors/index.js";

/** Writes one piece after another. */
export class Output {
  /** Aborted when the reader has closed its end of the pipe, or nothing can be written any more. */
  readonly closed: AbortSignal;
  readonly #closing = new AbortController();

  readonly #stream: Writable;

  constructor(stream: Writable = process.stdout) {
    this.#stream = stream;
    this.closed = this.#closing.signal;
    // The callback of the write tells what went wrong; without a listener the event would end the process.
    stream.on("error", (error) => this.#closing.abort(error));
  }

  /** Whether something waits for the reader. */
  get isBehind(): boolean {
    return this.#stream.writableLength > 0;
  }

  /**
   * Resolves when all of the text is written: to the pipe, the terminal or the file.
   *
   * @returns false if the reader has left
   * @throws CliError `output_failed` if it could not be written for another reason, such as a full disk
   */
  write(text: string): Promise<boolean> {
    return new Promise((resolve, reject) => {
      this.#stream.write(text, (error) => {
        if (error === null || error === undefined) resolve(true);
        else if (isGone(error)) {
          this.#closing.abort(error);
          resolve(false);
        } else {
          reject(
            new CliError("output_failed", `could not write what was to be printed: ${error.message}`, { cause: error }),
          );
        }
      });
    });
  }
}

/** Whether an error of a stream says that its reader closed the pipe, or that the reader's process ended. */
export function isGone(error: NodeJS.ErrnoException): boolean {
  return ["EPIPE", "ECONNRESET", "ERR_STREAM_DESTROYED"].includes(error.code ?? "");
}

/** Writes text and a line's end to the stream, without colours where nobody would see them. */
export function print(stream: NodeJS.WriteStream, text: string): void {
  const plain = !stream.isTTY || Boolean(process.env["NO_COLOR"]);
  // citty pads its columns to the end of the line.
  const lines = (plain ? stripVTControlCharacters(text) : text).split("\n").map((line) => line.trimEnd());
  stream.write(`${lines.join("\n").trimEnd()}\n`);
}
